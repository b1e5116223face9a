// Package platform lists all components of the platform, in the order in which
// they are brought up.
package platform

import (
	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/base"
	"github.com/mi-lb/mi-lb/provision/component/consul"
	"github.com/mi-lb/mi-lb/provision/component/dns"
	"github.com/mi-lb/mi-lb/provision/component/docker"
	"github.com/mi-lb/mi-lb/provision/component/edge"
	"github.com/mi-lb/mi-lb/provision/component/marathon"
	"github.com/mi-lb/mi-lb/provision/component/mesosagent"
	"github.com/mi-lb/mi-lb/provision/component/mesosmaster"
	"github.com/mi-lb/mi-lb/provision/component/registrator"
	"github.com/mi-lb/mi-lb/provision/component/zookeeper"
)

// Components are all components, in the order of waves: each needs only those
// before it.
func Components() []component.Component {
	return []component.Component{
		base.New(),
		docker.New(),
		zookeeper.New(),
		consul.NewServer(),
		consul.NewClient(),
		dns.New(),
		mesosmaster.New(),
		marathon.New(),
		mesosagent.New(),
		registrator.New(),
		edge.New(),
	}
}

// Variables are those of the inventory that components read.
func Variables() []cluster.VariableDoc {
	var all []cluster.VariableDoc
	for _, c := range Components() {
		all = append(all, c.Variables()...)
	}
	return all
}
