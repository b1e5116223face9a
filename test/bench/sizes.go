package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/ask"
	"github.com/mi-lb/mi-lb/test/bench/report"
	"github.com/mi-lb/mi-lb/test/bench/subject"
	"github.com/mi-lb/mi-lb/test/bench/world"
	"github.com/mi-lb/mi-lb/test/consul"
)

// candidate is a kind of subject with the agent that it asks.
type candidate struct {
	subject.Kind
	// limits of the agent are Consul's default.
	limits bool
	// stopped is that the control plane is halted while things change: what the load
	// sees then is not its doing.
	stopped bool
}

func (c candidate) name() string {
	if c.stopped {
		return c.Name + " halted"
	}
	if c.Peer && c.limits {
		return c.Name + ", agent with default limits"
	}
	return c.Name
}

func (c candidate) agent(w *world.Consul) *consul.Agent {
	if c.limits {
		return w.Default
	}
	return w.Raised
}

// candidates at a size: mi-lb under the default limits of an agent, peers without, and
// the first size at which that matters also with them.
func (b *bench) candidates(s size) []candidate {
	var all []candidate
	for _, k := range b.kinds() {
		all = append(all, candidate{Kind: k, limits: !k.Peer})
	}
	for _, k := range b.kinds() {
		if k.Peer && s.Services == 1000 && b.options.runs("scale") {
			all = append(all, candidate{Kind: k, limits: true})
			break
		}
	}
	return all
}

// largestForPeers: beyond it a start takes minutes.
const largestForPeers = 5000

// measured are how many services there are to be changed, with one instance each that
// stays: their traffic is that of one instance or of two, which makes it plain when
// another one has its share.
const measured = 10

// sizes measures scale and propagation, which need the same.
func (b *bench) sizes() {
	var scales []scaleResult
	var propagations []propagationResult
	for _, s := range b.options.sizes {
		b.Scope(func() {
			servers := world.StartServers(b.Program)
			w := world.StartConsul(b.Program)
			catalog := world.NewCatalog(s.Services-measured, s.Each, s.Nodes, servers.Port)
			var permanent []world.Instance
			for i := range measured {
				permanent = append(permanent, catalog.New(fmt.Sprintf("measured-%d", i)))
			}
			catalog.Instances = append(catalog.Instances, permanent...)
			w.Fill(catalog)
			for _, c := range b.candidates(s) {
				if c.Peer && s.Services > largestForPeers {
					continue
				}
				b.Scope(func() {
					m := &measuring{bench: b, size: s, candidate: c, world: w, catalog: catalog, permanent: permanent}
					scale, propagation := m.measure()
					scales = append(scales, scale)
					propagations = append(propagations, propagation...)
				})
			}
		})
	}
	if b.options.runs("scale") {
		b.publish(scalePart(scales))
	}
	if b.options.runs("propagation") {
		b.publish(propagationPart(propagations))
	}
}

// publish prints a part, and writes it.
func (b *bench) publish(part report.Part) {
	fmt.Fprintln(os.Stdout, part.Markdown(b.about))
	if b.options.out != "" {
		b.Check(part.Write(b.options.out, b.about))
	}
}

// measuring is one candidate at one size.
type measuring struct {
	*bench
	size      size
	candidate candidate
	world     *world.Consul
	catalog   *world.Catalog
	permanent []world.Instance
	subject   subject.Subject
	client    *ask.Client
}

func (m *measuring) measure() (scaleResult, []propagationResult) {
	begin := time.Now()
	m.subject = m.candidate.Start(m.Program, m.binaries, m.candidate.agent(m.world))
	m.client = &ask.Client{Address: m.subject.HTTPAddress()}
	m.Cleanup(m.client.Close)
	result := scaleResult{Subject: m.candidate.name(), Size: m.size}
	atMost := 4 * time.Minute
	if m.candidate.Peer && m.candidate.limits {
		atMost = 45 * time.Second
	}
	if err := m.ready(begin, atMost); err != nil {
		m.Logf("%s at %s: %v", m.candidate.name(), m.size, err)
		m.said()
		result.Failure = err.Error()
		return result, nil
	}
	result.Ready = time.Since(begin)
	m.Logf("%s at %s: routes after %s", m.candidate.name(), m.size, report.Milliseconds(result.Ready))
	m.settle()
	if m.options.runs("scale") {
		m.scale(&result)
	}
	var propagation []propagationResult
	if m.options.runs("propagation") {
		propagation = m.propagation()
	}
	m.said()
	return result, propagation
}

// said prints what the subject has logged, if that is asked for.
func (m *measuring) said() {
	if m.options.verbose {
		m.Logf("%s said:\n%s", m.candidate.name(), m.subject.Log())
	}
}

// ready returns when a number of services, spread over all, are served.
func (m *measuring) ready(begin time.Time, atMost time.Duration) error {
	const samples = 50
	var hosts []string
	for i := range samples {
		hosts = append(hosts, subject.Host(m.catalog.Instances[i*(len(m.catalog.Instances)-1)/(samples-1)].Service))
	}
	served := 0
	for time.Since(begin) < atMost {
		if why := m.subject.Ended(); why != "" {
			return errors.New(why)
		}
		answer, err := m.client.Get(hosts[served], "/")
		if err == nil && answer.Status == 200 {
			if served++; served == samples {
				return nil
			}
			continue
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("no route of %s in %s", hosts[served], atMost)
}

// settle returns when the subject and its Consul have become quiet.
func (m *measuring) settle() {
	const window, enough, atMost = 500 * time.Millisecond, 40 * time.Millisecond, 30 * time.Second
	for begin := time.Now(); time.Since(begin) < atMost; {
		before := subject.Used(m.subject, m.world.CPU)
		time.Sleep(window)
		used := subject.Used(m.subject, m.world.CPU).Since(before)
		if used.Control+used.HAProxy < enough && used.Consul < 2*enough {
			return
		}
	}
}
