// Package platform lists all components of the platform, in the order in which
// they are brought up.
package platform

import (
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/base"
	"github.com/mi-lb/mi-lb/provision/component/edge"
	"github.com/mi-lb/mi-lb/provision/component/registrator"
)

// Components are all components, in the order of waves: each needs only those
// before it.
func Components() []component.Component {
	return []component.Component{
		base.New(),
		registrator.New(),
		edge.New(),
	}
}
