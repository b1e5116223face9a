package consul

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// scope is what one answer speaks for: all instances of a service, or all on a
// node.
type scope struct {
	kind scopeKind
	name string
}

type scopeKind int

const (
	ofService scopeKind = iota
	ofNode
)

// catalog is what is known of one datacenter: the instances as last seen, those
// included whose absence is not believed yet. It belongs to one goroutine.
type catalog struct {
	datacenter string
	confirm    Confirmation
	resolve    func(host string) (netip.Addr, error)

	records map[key]*record
	// in has the records of each service and of each node.
	in map[scope][]*record
	// atHost are those with a host name for an address.
	atHost map[string]map[key]*record
	// held are the records that are missing.
	held map[key]*record
	// heldAt finds them by address.
	heldAt map[netip.AddrPort]map[key]*record

	services map[string]*watch.Service
	findings map[key]watch.Finding
	dirty    map[string]bool
	// findingsDirty says that the part's findings must be made anew.
	findingsDirty bool
	part          *watch.Part
	// answers counts the answers that were taken in.
	answers uint64
}

type record struct {
	entry
	// missing is why the record is held; since is from when on its absence stands,
	// zero while there is no contact and the clock does not run.
	missing doubt
	since   time.Time
	// seen is the newest answer that had it.
	seen uint64
}

// newCatalog starts with the part that was good when mi-lb last ran, if any.
func newCatalog(datacenter string, known *watch.Part, confirm Confirmation, resolve func(string) (netip.Addr, error)) *catalog {
	c := &catalog{
		datacenter: datacenter,
		confirm:    confirm.withDefaults(),
		resolve:    resolve,
		records:    map[key]*record{},
		in:         map[scope][]*record{},
		atHost:     map[string]map[key]*record{},
		held:       map[key]*record{},
		heldAt:     map[netip.AddrPort]map[key]*record{},
		services:   map[string]*watch.Service{},
		findings:   map[key]watch.Finding{},
		dirty:      map[string]bool{},
	}
	if known == nil {
		return c
	}
	c.part = known
	for name, service := range known.Services {
		if service == nil {
			continue
		}
		c.services[name] = service
		for _, instance := range service.Instances {
			if c.records[key{instance.Node, instance.ID}] != nil {
				continue
			}
			c.put(&record{entry: entry{service: name, instance: instance, port: instance.Address.Port()}})
		}
	}
	return c
}

func (c *catalog) put(r *record) {
	k := r.key()
	c.records[k] = r
	for _, s := range []scope{{ofService, r.service}, {ofNode, k.node}} {
		c.in[s] = append(c.in[s], r)
	}
	c.noteHost("", r)
}

// noteHost keeps atHost in step with a record that had another host name before.
func (c *catalog) noteHost(before string, r *record) {
	if before == r.host {
		return
	}
	if before != "" {
		delete(c.atHost[before], r.key())
		if len(c.atHost[before]) == 0 {
			delete(c.atHost, before)
		}
	}
	if r.host != "" {
		if c.atHost[r.host] == nil {
			c.atHost[r.host] = map[key]*record{}
		}
		c.atHost[r.host][r.key()] = r
	}
}

func (c *catalog) drop(r *record) {
	k := r.key()
	c.release(r)
	delete(c.records, k)
	for _, s := range []scope{{ofService, r.service}, {ofNode, k.node}} {
		i := slices.Index(c.in[s], r)
		if c.in[s] = slices.Delete(c.in[s], i, i+1); len(c.in[s]) == 0 {
			delete(c.in, s)
		}
	}
	host := r.host
	r.host = ""
	c.noteHost(host, r)
	if _, had := c.findings[k]; had {
		delete(c.findings, k)
		c.findingsDirty = true
	}
	c.dirty[r.service] = true
}

func (c *catalog) hold(r *record, why doubt, now time.Time) {
	if r.missing != noDoubt {
		if r.since.IsZero() {
			r.missing, r.since = why, now
		}
		return
	}
	r.missing, r.since = why, now
	c.held[r.key()] = r
	at := r.instance.Address
	if c.heldAt[at] == nil {
		c.heldAt[at] = map[key]*record{}
	}
	c.heldAt[at][r.key()] = r
}

func (c *catalog) release(r *record) {
	if r.missing == noDoubt {
		return
	}
	r.missing = noDoubt
	delete(c.held, r.key())
	at := r.instance.Address
	delete(c.heldAt[at], r.key())
	if len(c.heldAt[at]) == 0 {
		delete(c.heldAt, at)
	}
}

// apply takes in an answer: everything that the scope has. What it lacks is gone,
// or is held if there is a doubt.
func (c *catalog) apply(s scope, entries []entry, why doubt, now time.Time) {
	c.answers++
	for _, e := range entries {
		c.see(e)
	}
	for _, r := range slices.Backward(c.in[s]) {
		if r.seen != c.answers {
			c.miss(r, why, now)
		}
	}
}

// absent takes in that a whole scope is not in the datacenter's list of names.
func (c *catalog) absent(s scope, why doubt, now time.Time) {
	for _, r := range slices.Backward(c.in[s]) {
		c.miss(r, why, now)
	}
}

func (c *catalog) miss(r *record, why doubt, now time.Time) {
	switch {
	case why != noDoubt:
		c.hold(r, why, now)
	case r.missing == noDoubt:
		c.drop(r)
	case r.since.IsZero():
		// Held from before a break; that nothing is odd about this answer does not
		// make up for the ones that were not seen.
		r.since = now
	}
}

func (c *catalog) see(e entry) {
	old := c.records[e.key()]
	if e.host != "" {
		c.locate(&e, old)
	}
	if old != nil {
		c.release(old)
		if old.service != e.service {
			c.drop(old)
			old = nil
		}
	}
	// A held instance whose address somebody else has now is not there.
	if e.instance.Address.IsValid() {
		for k, r := range maps.Clone(c.heldAt[e.instance.Address]) {
			if k != e.key() {
				c.drop(r)
			}
		}
	}
	switch {
	case old == nil:
		old = &record{entry: e}
		c.put(old)
		c.dirty[e.service] = true
	case !sameInstance(&old.instance, &e.instance):
		host := old.host
		old.entry = e
		c.noteHost(host, old)
		c.dirty[e.service] = true
	default:
		host := old.host
		old.host, old.port, old.finding = e.host, e.port, e.finding
		c.noteHost(host, old)
	}
	old.seen = c.answers
	c.note(e)
}

// note keeps the findings in step with an entry.
func (c *catalog) note(e entry) {
	had, has := c.findings[e.key()]
	switch {
	case e.finding == nil && has:
		delete(c.findings, e.key())
		c.findingsDirty = true
	case e.finding != nil:
		f := *e.finding
		f.Source = watch.Source{Kind: watch.Consul, Name: c.datacenter}.String()
		if !has || had != f {
			c.findings[e.key()] = f
			c.findingsDirty = true
		}
	}
}

// locate fills in the address of an entry that has a host name. While the name
// is being looked up for the first time, the instance keeps the address it had.
func (c *catalog) locate(e *entry, old *record) {
	address, err := c.resolve(e.host)
	switch {
	case address.IsValid():
		e.instance.Address = netip.AddrPortFrom(address, e.port)
	case old != nil && old.instance.Address.IsValid():
		e.instance.Address = netip.AddrPortFrom(old.instance.Address.Addr(), e.port)
	}
	if err == nil {
		return
	}
	instead := "the instance is left out until the name resolves"
	if e.instance.Address.IsValid() {
		instead = "its last address stays in use"
	}
	e.finding = &watch.Finding{
		Code:    "unresolved-address",
		Service: e.service,
		Key:     "address",
		Message: fmt.Sprintf("instance %s on node %s: host name %s: %s", watch.Printable(e.instance.ID),
			watch.Printable(e.instance.Node), watch.Printable(e.host), watch.Printable(err.Error())),
		Instead: instead,
	}
}

// resolved takes in that a host name has another address.
func (c *catalog) resolved(host string) {
	for _, r := range maps.Clone(c.atHost[host]) {
		if r.missing != noDoubt {
			continue
		}
		e := r.entry
		e.finding = nil
		c.see(e)
	}
}

// interrupt stops the clocks of held records: contact is lost.
func (c *catalog) interrupt() {
	for _, r := range c.held {
		r.since = time.Time{}
	}
}

// confirmed drops the held records that have been missing for long enough.
func (c *catalog) confirmed(now time.Time) {
	known, missing := len(c.records), len(c.held)
	for _, r := range c.held {
		if !r.since.IsZero() && c.confirm.gone(r.missing, known, missing, now.Sub(r.since)) {
			c.drop(r)
		}
	}
}

// names are those of all scopes of the kind.
func (c *catalog) names(kind scopeKind) []string {
	var names []string
	for s := range c.in {
		if s.kind == kind {
			names = append(names, s.name)
		}
	}
	return names
}

// count is how many scopes of the kind there are.
func (c *catalog) count(kind scopeKind) int {
	n := 0
	for s := range c.in {
		if s.kind == kind {
			n++
		}
	}
	return n
}

// changed says whether flush may have something to publish.
func (c *catalog) changed() bool { return len(c.dirty) > 0 || c.findingsDirty || c.part == nil }

// flush is a new part if anything differs from the last one, else nil. Services
// that did not change keep their pointers.
func (c *catalog) flush() *watch.Part {
	services, changed := c.services, []string(nil)
	for name := range c.dirty {
		before, after := c.services[name], c.service(name)
		if after == nil && before == nil || after != nil && before != nil && sameService(before, after) {
			continue
		}
		if changed == nil {
			services = maps.Clone(c.services)
		}
		changed = append(changed, name)
		if after == nil {
			delete(services, name)
		} else {
			services[name] = after
		}
	}
	clear(c.dirty)
	same := c.part != nil && changed == nil
	var findings []watch.Finding
	if c.part != nil {
		findings = c.part.Findings
	}
	if c.findingsDirty || c.part == nil {
		fresh := slices.SortedFunc(maps.Values(c.findings), watch.Finding.Compare)
		if !slices.Equal(fresh, findings) {
			findings, same = fresh, false
		}
	}
	c.findingsDirty = false
	if same {
		return nil
	}
	part := &watch.Part{
		Source:     watch.Source{Kind: watch.Consul, Name: c.datacenter},
		Datacenter: c.datacenter,
		Services:   services,
		Findings:   findings,
	}
	if c.part != nil {
		part.Follow(c.part, changed)
	}
	c.services, c.part = services, part
	return part
}

// service is the service as it is now; nil if nothing is left of it. One whose
// instances are all unusable is there, without instances.
func (c *catalog) service(name string) *watch.Service {
	records := c.in[scope{ofService, name}]
	if len(records) == 0 || name == "" {
		return nil
	}
	s := &watch.Service{Name: name, Instances: make([]watch.Instance, 0, len(records))}
	for _, r := range records {
		if r.instance.Address.IsValid() {
			s.Instances = append(s.Instances, r.instance)
		}
	}
	slices.SortFunc(s.Instances, func(a, b watch.Instance) int {
		return key{a.Node, a.ID}.compare(key{b.Node, b.ID})
	})
	return s
}

func sameService(a, b *watch.Service) bool {
	return slices.EqualFunc(a.Instances, b.Instances, func(x, y watch.Instance) bool { return sameInstance(&x, &y) })
}

func sameInstance(a, b *watch.Instance) bool {
	return a.ID == b.ID && a.Node == b.Node && a.Address == b.Address && a.Health == b.Health && a.Reason == b.Reason &&
		a.Weights == b.Weights && slices.Equal(a.Tags, b.Tags) && maps.Equal(a.Meta, b.Meta)
}
