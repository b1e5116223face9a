package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mi-lb/mi-lb/watch"
	"github.com/mi-lb/mi-lb/watch/resolve"
)

// Config describes one file.
type Config struct {
	// Path of the file; it need not exist yet.
	Path string
	// Datacenter of services for which the file names none.
	Datacenter string
	// Logger; nil for none.
	Logger *slog.Logger
	// Poll is how often the file is read; default 500 ms. A change is taken up
	// when two reads in a row agree on it.
	Poll time.Duration
	// Resolve is how long the address of a host name is remembered; default 60 s.
	Resolve time.Duration

	lookup resolve.Lookup
}

// Watcher keeps the parts of one file fresh.
type Watcher struct {
	config   Config
	resolver *resolve.Resolver
	log      *slog.Logger

	// content is the last good one, read from a file with this sum.
	content *content
	sum     [sha256.Size]byte
	// err is why the newest file is not used; nil if it is.
	err error
	// resolveAt is when host names are looked up again.
	resolveAt time.Time

	services map[watch.Source]map[string]*watch.Service
	findings map[watch.Source][]watch.Finding
	states   map[watch.Source]watch.State
}

var _ watch.Watcher = (*Watcher)(nil)

// New does not read the file yet.
func New(c Config) (*Watcher, error) {
	if c.Path == "" {
		return nil, errors.New("a file of services needs a path")
	}
	if c.Poll <= 0 {
		c.Poll = 500 * time.Millisecond
	}
	if c.Resolve <= 0 {
		c.Resolve = time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Watcher{
		config: c, resolver: resolve.New(c.lookup, c.Resolve), log: c.Logger.With("file", c.Path),
		services: map[watch.Source]map[string]*watch.Service{},
		findings: map[watch.Source][]watch.Finding{},
		states:   map[watch.Source]watch.State{},
	}, nil
}

// Check reads the file once and says what is wrong with it: nil, or an error
// that names file and line.
func Check(path string) error {
	in, err := read(path)
	if err != nil {
		return err
	}
	_, err = parse(path, in)
	return err
}

// Run implements [watch.Watcher]. It may be called once at a time.
func (w *Watcher) Run(ctx context.Context, sink watch.Sink) {
	w.report(sink, w.source(""), watch.Connecting, time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last []byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		in, err := read(w.config.Path)
		wait := w.config.Poll
		if err == nil && (last == nil || !bytes.Equal(in, last)) {
			// It may still be being written: half a file can be good YAML.
			wait = min(settle, wait)
		} else {
			w.take(ctx, sink, in, err)
		}
		last = in
		timer.Reset(wait)
	}
}

// settle is how long a changed file must stay as it is to be taken up.
const settle = 50 * time.Millisecond

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the file of services: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading the file of services: %s is not a file", path)
	}
	in, err := io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the file of services: %w", err)
	}
	return in, nil
}

// take takes in what was read, publishes what changed and reports.
func (w *Watcher) take(ctx context.Context, sink watch.Sink, in []byte, err error) {
	now := time.Now()
	changed := false
	if err == nil {
		if sum := sha256.Sum256(in); sum != w.sum {
			var c *content
			c, err = parse(w.config.Path, in)
			w.sum = sum
			if err == nil {
				w.content, changed = c, true
				w.log.Info("services read", "services", len(c.services))
			}
		} else if w.err != nil {
			err = w.err // the same broken file
		}
	} else {
		w.sum = [sha256.Size]byte{}
	}
	if err != nil && (w.err == nil || err.Error() != w.err.Error()) {
		w.log.Error("the file of services is not used; what was known before stays", "error", err)
	}
	w.err = err
	if w.content != nil && (changed || !now.Before(w.resolveAt)) {
		w.publish(ctx, sink)
		w.resolveAt = now.Add(w.config.Resolve)
	}
	status := watch.Current
	if err != nil {
		status = watch.Stale
		if w.content == nil {
			status = watch.Connecting
		}
	}
	w.report(sink, w.source(""), status, now)
	for source := range w.services {
		w.report(sink, source, status, now)
	}
}

// source of the datacenter; "" is the default one.
func (w *Watcher) source(datacenter string) watch.Source {
	s := watch.Source{Kind: watch.File, Name: w.config.Path}
	if datacenter != "" {
		s.Name += "#" + datacenter
	}
	return s
}

// publish makes parts of the content, publishes those that changed and withdraws
// those of datacenters that are no longer in the file.
func (w *Watcher) publish(ctx context.Context, sink watch.Sink) {
	var hosts []string
	for _, s := range w.content.services {
		for _, i := range s.instances {
			hosts = append(hosts, i.host)
		}
	}
	addresses := w.resolver.Resolve(ctx, hosts)
	if ctx.Err() != nil {
		return
	}
	standard := w.config.Datacenter
	if w.content.datacenter != "" {
		standard = w.content.datacenter
	}
	parts := map[watch.Source]*watch.Part{}
	part := func(datacenter string) *watch.Part {
		source := w.source("")
		if datacenter != standard {
			source = w.source(datacenter)
		}
		if parts[source] == nil {
			parts[source] = &watch.Part{Source: source, Datacenter: datacenter, Services: map[string]*watch.Service{}}
		}
		return parts[source]
	}
	part(standard)
	for _, s := range w.content.services {
		datacenter := s.datacenter
		if datacenter == "" {
			datacenter = standard
		}
		p := part(datacenter)
		built, findings := resolved(p.Source, s, addresses)
		if before := w.services[p.Source][s.name]; before != nil && sameService(before, built) {
			built = before
		}
		p.Services[s.name] = built
		p.Findings = append(p.Findings, findings...)
	}
	for source, p := range parts {
		slices.SortFunc(p.Findings, watch.Finding.Compare)
		before, known := w.services[source]
		if known && maps.Equal(before, p.Services) && slices.Equal(w.findings[source], p.Findings) {
			continue
		}
		w.services[source], w.findings[source] = p.Services, p.Findings
		sink.Publish(p)
	}
	for source := range w.services {
		if parts[source] == nil {
			delete(w.services, source)
			delete(w.findings, source)
			delete(w.states, source)
			sink.Withdraw(source)
		}
	}
}

// resolved is the service with the addresses of its hosts. An instance whose
// host has never resolved is left out, with a finding.
func resolved(source watch.Source, s service, addresses map[string]resolve.Answer) (*watch.Service, []watch.Finding) {
	built := &watch.Service{Name: s.name, Instances: make([]watch.Instance, 0, len(s.instances))}
	var findings []watch.Finding
	for _, i := range s.instances {
		answer := addresses[i.host]
		if answer.Err != nil {
			instead := "the address last known is used"
			if !answer.Addr.IsValid() {
				instead = "the instance is left out until the name resolves"
			}
			findings = append(findings, watch.Finding{
				Code: "unresolved-host", Source: source.String(), Service: watch.Printable(s.name), Key: watch.Printable(i.host),
				Message: "the address is not known: " + watch.Printable(answer.Err.Error()), Instead: instead,
			})
		}
		if !answer.Addr.IsValid() {
			continue
		}
		i.Address = netip.AddrPortFrom(answer.Addr, i.port)
		built.Instances = append(built.Instances, i.Instance)
	}
	return built, findings
}

func sameService(a, b *watch.Service) bool {
	return a.Name == b.Name && slices.EqualFunc(a.Instances, b.Instances, func(i, j watch.Instance) bool {
		return i.ID == j.ID && i.Node == j.Node && i.Address == j.Address && i.Health == j.Health && i.Reason == j.Reason &&
			i.Weights == j.Weights && slices.Equal(i.Tags, j.Tags) && maps.Equal(i.Meta, j.Meta)
	})
}

// report tells how the source is, if that is news; that it was read once more is
// only news every few seconds.
func (w *Watcher) report(sink watch.Sink, source watch.Source, status watch.Status, now time.Time) {
	before, known := w.states[source]
	state := before
	state.Source, state.Detail = source, fmt.Sprintf("read every %s", w.config.Poll)
	if !known || before.Status != status {
		state.Status, state.Since = status, now
	}
	if status == watch.Current && now.Sub(before.LastSuccess) >= 5*time.Second {
		state.LastSuccess = now
	}
	if w.err != nil && (w.err.Error() != before.LastError || now.Sub(before.LastErrorAt) >= 5*time.Second) {
		state.LastError, state.LastErrorAt = w.err.Error(), now
	}
	if known && state == before {
		return
	}
	w.states[source] = state
	sink.Report(state)
}
