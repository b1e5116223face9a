package templates

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	dep "github.com/hashicorp/consul-template/dependency"
	ct "github.com/hashicorp/consul-template/template"
	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/watch"
)

// notInSnapshot are the fields of a service that no snapshot has. A template that
// reads one gets its services from Consul.
var notInSnapshot = []string{
	"NodeAddress", "NodeID", "NodeMeta", "NodeTaggedAddresses", "ServiceTaggedAddresses", "Checks",
}

// catalog answers from the snapshot what templates ask of Consul's catalog.
type catalog struct {
	brain *ct.Brain

	mu    sync.Mutex
	world *watch.Snapshot
	// answers are what the brain was told, by name of the dependency.
	answers map[string]*answer
}

type answer struct {
	question   question
	dependency dep.Dependency
	// from is what it was made of: unless that changes the answer stands.
	from any
}

func newCatalog(brain *ct.Brain) *catalog {
	return &catalog{brain: brain, answers: map[string]*answer{}}
}

// question is a dependency that a snapshot can answer.
type question struct {
	kind       questionKind
	datacenter string // "" for the local one
	service    string
	tag        string
	filters    []string
}

type questionKind int

const (
	askDatacenters questionKind = iota
	askServices
	askService
)

// ask is the question that the dependency stands for, if a snapshot can answer
// it. Those about nearness, namespaces, partitions and peers it cannot.
func ask(d dep.Dependency) (question, bool) {
	switch d.(type) {
	case *dep.CatalogDatacentersQuery:
		return question{kind: askDatacenters}, true
	case *dep.CatalogServicesQuery:
		inner := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(d.String(), "catalog.services"), "("), ")")
		m := dep.CatalogServicesQueryRe.FindStringSubmatch(inner)
		if m == nil {
			return question{}, false
		}
		return question{kind: askServices, datacenter: m[dep.CatalogServicesQueryRe.SubexpIndex("dc")]}, true
	case *dep.HealthServiceQuery:
		inner, isService := strings.CutPrefix(d.String(), "health.service(")
		re := dep.HealthServiceQueryRe
		m := re.FindStringSubmatch(strings.TrimSuffix(inner, ")"))
		if !isService || m == nil || m[re.SubexpIndex("near")] != "" {
			return question{}, false
		}
		return question{
			kind:       askService,
			datacenter: m[re.SubexpIndex("dc")],
			service:    m[re.SubexpIndex("name")],
			tag:        m[re.SubexpIndex("tag")],
			filters:    strings.Split(m[re.SubexpIndex("filter")], ","),
		}, true
	}
	return question{}, false
}

// update answers all questions anew whose answers changed with the snapshot.
func (c *catalog) update(world *watch.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.world == world {
		return
	}
	c.world = world
	for _, a := range c.answers {
		// What is not known any more keeps its last answer.
		_ = c.tell(a)
	}
}

// answer tells the brain, or says why it cannot.
func (c *catalog) answer(q question, d dep.Dependency) (reason string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &answer{question: q, dependency: d}
	if err := c.tell(a); err != nil {
		return err.Error(), false
	}
	c.answers[d.String()] = a
	return "", true
}

func (c *catalog) retain(live map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, a := range c.answers {
		if !live[name] {
			c.brain.Forget(a.dependency)
			delete(c.answers, name)
		}
	}
}

// never is what an answer is made of that says "nothing, for now".
type never struct{}

func (c *catalog) tell(a *answer) error {
	if c.world == nil {
		return fmt.Errorf("is not there yet")
	}
	if a.question.kind == askDatacenters {
		names, err := datacenters(c.world)
		if err != nil {
			return err
		}
		c.brain.Remember(a.dependency, names)
		return nil
	}
	part, err := c.part(a.question.datacenter)
	if err != nil {
		return err
	}
	var from any = never{}
	switch {
	case part != nil && a.question.kind == askServices:
		from = part
	case part != nil:
		from = part.Services[a.question.service]
	}
	if a.from == from {
		return nil
	}
	a.from = from
	if a.question.kind == askServices {
		c.brain.Remember(a.dependency, snippets(part))
		return nil
	}
	c.brain.Remember(a.dependency, instances(part, a.question))
	return nil
}

// part is that of a datacenter; nil for one that the catalog lists and that has
// not answered yet: a datacenter that is down must not keep the others from being
// routed to.
func (c *catalog) part(datacenter string) (*watch.Part, error) {
	local := datacenter == "" || datacenter == c.world.Datacenter
	if local {
		datacenter = c.world.Datacenter
	}
	if p := c.world.Part(watch.Source{Kind: watch.Consul, Name: datacenter}); p != nil {
		return p, nil
	}
	known, err := datacenters(c.world)
	switch {
	case err != nil:
		return nil, err
	case local:
		return nil, fmt.Errorf("waits for the catalog of datacenter %s", datacenter)
	case !slices.Contains(known, datacenter):
		return nil, fmt.Errorf("asks for datacenter %s, and Consul knows %s", datacenter, strings.Join(known, ", "))
	}
	return nil, nil
}

// datacenters are those that Consul knows, sorted as consul-template does.
func datacenters(world *watch.Snapshot) ([]string, error) {
	names := []string{}
	for _, p := range world.Parts {
		if p.Source.Kind != watch.Consul {
			continue
		}
		if p.Datacenter != "" {
			names = append(names, p.Datacenter)
		}
		for _, dc := range p.Datacenters {
			names = append(names, dc.Name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("waits for Consul's catalog")
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func snippets(part *watch.Part) []*dep.CatalogSnippet {
	list := []*dep.CatalogSnippet{}
	if part == nil {
		return list
	}
	for name, service := range part.Services {
		var tags []string
		for _, i := range service.Instances {
			tags = append(tags, i.Tags...)
		}
		slices.Sort(tags)
		list = append(list, &dep.CatalogSnippet{Name: name, Tags: slices.Compact(tags)})
	}
	slices.SortFunc(list, func(a, b *dep.CatalogSnippet) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func instances(part *watch.Part, q question) []*dep.HealthService {
	list := []*dep.HealthService{}
	if part == nil || part.Services[q.service] == nil {
		return list
	}
	for _, i := range part.Services[q.service].Instances {
		status := status(i.Health)
		if !slices.Contains(q.filters, status) && !slices.Contains(q.filters, dep.HealthAny) {
			continue
		}
		// Consul compares tags without case.
		if q.tag != "" && !slices.ContainsFunc(i.Tags, func(tag string) bool { return strings.EqualFold(tag, q.tag) }) {
			continue
		}
		tags := slices.Clone(i.Tags)
		slices.Sort(tags)
		list = append(list, &dep.HealthService{
			Node:        i.Node,
			Address:     i.Address.Addr().String(),
			ID:          i.ID,
			Name:        q.service,
			Tags:        tags,
			Status:      status,
			Port:        int(i.Address.Port()),
			ServiceMeta: i.Meta,
			Weights:     api.AgentWeights{Passing: i.Weights.Passing, Warning: i.Weights.Warning},
		})
	}
	slices.SortStableFunc(list, func(a, b *dep.HealthService) int {
		if n := strings.Compare(a.Node, b.Node); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// status is Consul's word for a health. Consul calls what nobody checks passing.
func status(h watch.Health) string {
	switch h {
	case watch.HealthWarning:
		return dep.HealthWarning
	case watch.HealthMaintenance:
		return dep.HealthMaint
	case watch.HealthCritical:
		return dep.HealthCritical
	default:
		return dep.HealthPassing
	}
}
