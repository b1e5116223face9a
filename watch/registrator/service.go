package registrator

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/watch"
)

// Policy is what the operator asked for.
type Policy struct {
	// Host is this host's name: the first part of service ids, and the mark that
	// says whose a service is.
	Host string
	// Address is where published ports are reached when they are not bound to an
	// address of their own; with ForceAddress even then.
	Address      string
	ForceAddress bool
	// Internal registers exposed ports at the container's own address.
	Internal bool
	// Explicit registers only containers that give a SERVICE_NAME.
	Explicit bool
	// RequireLabel registers only containers that have a SERVICE_REGISTER.
	RequireLabel bool
	// AddressLabel names a label that holds the address to register.
	AddressLabel string
	// KeepFailed leaves the services of containers that ended with an error.
	KeepFailed bool
	// Cleanup also deregisters services that gliderlabs/registrator left behind.
	Cleanup bool
	// MarathonNames names tasks for their app where they give no SERVICE_NAME.
	MarathonNames bool
	// ScriptChecks passes on checks that run commands on this host.
	ScriptChecks bool
	// DockerHealth registers a container's HEALTHCHECK as a check.
	DockerHealth bool
}

// Service is one that should be registered. It is immutable.
type Service struct {
	Registration api.AgentServiceRegistration
	// Container is the short id of the one it comes from.
	Container string
	// created orders containers that claim one id.
	created string
	// Health is what the HEALTHCHECK says, nil where there is none.
	Health *CheckState
	// Maintenance is why the service is to have no new traffic; empty where it is.
	Maintenance string
	// drainReason is what Maintenance is while the container is being stopped: it
	// names the container and when it was started, so that it is recognized
	// later, and not mistaken for that of an earlier start.
	drainReason string
}

// ID is the service's id on the agent.
func (s *Service) ID() string { return s.Registration.ID }

// CheckState is the status of a check, in Consul's words, and why.
type CheckState struct{ Status, Output string }

// Observed is a container as last seen, with what is known of it from elsewhere.
type Observed struct {
	Container *Container
	// ForcedTags are those of -tags.
	ForcedTags []string
	// TagsError says why -tags could not be evaluated for the container.
	TagsError error
	// Stopping is set once the container has been sent its stop signal.
	Stopping bool
}

// Description is what one container asks for.
type Description struct {
	Services []*Service
	Findings []watch.Finding
	// Keep is set where the container's services stay as the agent has them: it
	// ended with an error and -deregister is on-success.
	Keep bool
}

// Describe turns one container into the services it asks for. The peer function
// finds another container by id or name, nil where it does not run.
func Describe(p Policy, o Observed, peer func(idOrName string) *Container) Description {
	c := o.Container
	d := Description{}
	if !c.Serving() {
		d.Keep = p.KeepFailed && c.Failed()
		return d
	}
	if p.RequireLabel && parseMetadata(c).values["register"] == "" {
		return d
	}
	found, problems := endpoints(p, c, peer)
	if o.TagsError != nil && len(found) > 0 {
		problems = append(problems, problem{"tags-failed", "-tags", o.TagsError.Error(), "the services are registered without these tags"})
	}
	taken := map[string]bool{}
	for _, e := range found {
		s, more := describeService(p, o, e, len(found) > 1)
		problems = append(problems, more...)
		if s == nil {
			continue
		}
		if taken[s.ID()] {
			problems = append(problems, problem{"id-taken", "", fmt.Sprintf("two of its ports claim the service id %s", quote(s.ID())),
				fmt.Sprintf("port %d is not registered; give each port its own SERVICE_<port>_ID", e.exposed)})
			continue
		}
		taken[s.ID()] = true
		d.Services = append(d.Services, s)
	}
	for _, problem := range problems {
		d.Findings = append(d.Findings, watch.Finding{
			Code: problem.code, Source: "docker/" + watch.Printable(c.PlainName()), Key: watch.Printable(problem.key),
			Message: problem.message, Instead: problem.instead,
		})
	}
	slices.SortFunc(d.Findings, watch.Finding.Compare)
	return d
}

// describeService is the service on one endpoint, nil where it is not wanted or
// cannot be registered.
func describeService(p Policy, o Observed, e endpoint, several bool) (*Service, []problem) {
	c := o.Container
	m := parseMetadata(c, e.numbers()...)
	if m.values["ignore"] != "" {
		return nil, nil
	}
	name := m.values["name"]
	if name == "" {
		if p.Explicit {
			return nil, nil
		}
		name = defaultName(p, c)
	}
	if several && !(m.fromPort["name"] && m.values["name"] != "") {
		name += "-" + e.suffix
	}
	if !plainWord(name) || len(name) > maxName {
		return nil, []problem{{"invalid-name", m.origin["name"], quote(name) + " cannot be a service's name",
			fmt.Sprintf("port %d is not registered; a name has no spaces or control characters and at most %d bytes", e.exposed, maxName)}}
	}
	id, problems := serviceID(p, c, e, m)
	if !validID(id) {
		return nil, append(problems, problem{"invalid-id", "", quote(id) + " cannot be a service's id", fmt.Sprintf("port %d is not registered; give it a SERVICE_%d_ID", e.exposed, e.exposed)})
	}

	address, more := labelAddress(p, c, e.address)
	problems = append(problems, more...)
	if ip, err := netip.ParseAddr(address); err != nil || ip.IsUnspecified() || ip.Zone() != "" {
		return nil, append(problems, problem{"no-address", "", fmt.Sprintf("port %d has no address to register (%s)", e.exposed, quote(address)),
			"it is not registered; give the host's address with -ip"})
	}
	e.address = address

	tags, more := tagList(o, e, m)
	problems = append(problems, more...)
	meta, more := metaMap(m)
	problems = append(problems, more...)

	s := &Service{
		Registration: api.AgentServiceRegistration{ID: id, Name: name, Address: address, Port: e.port, Tags: tags, Meta: meta},
		Container:    c.ShortID(),
		created:      c.Created,
		drainReason:  fmt.Sprintf("mi-lb registrator: container %s, started %s, is being stopped", c.ShortID(), c.State.StartedAt),
	}
	check, more := parseCheck(p, c, e, m, id)
	problems = append(problems, more...)
	if check != nil {
		s.Registration.Checks = append(s.Registration.Checks, check)
	}
	if s.Health = containerHealth(p, c, m); s.Health != nil {
		s.Registration.Checks = append(s.Registration.Checks, &api.AgentServiceCheck{
			CheckID: dockerCheckID(id), Name: "Docker HEALTHCHECK", TTL: neverExpires,
			Status: s.Health.Status, Notes: "as Docker runs it in container " + c.ShortID(),
		})
	}
	switch {
	case o.Stopping:
		s.Maintenance = s.drainReason
	case c.State.Paused:
		s.Maintenance = fmt.Sprintf("mi-lb registrator: container %s is paused", c.ShortID())
	}
	s.mark(p.Host)
	return s, problems
}

// defaultName is the name of a service that gives none: its image's, without
// registry, repository, tag and digest, or its Marathon app's.
func defaultName(p Policy, c *Container) string {
	if app, ok := c.env("MARATHON_APP_ID"); ok && p.MarathonNames {
		if name := strings.ToLower(strings.ReplaceAll(strings.Trim(app, "/"), "/", "-")); name != "" {
			return name
		}
	}
	name, _, _ := strings.Cut(path.Base(c.Config.Image), ":")
	name, _, _ = strings.Cut(name, "@")
	return name
}

// serviceID is what the container asks for, or <host>:<container>:<port>[:udp].
func serviceID(p Policy, c *Container, e endpoint, m metadata) (string, []problem) {
	id := p.Host + ":" + c.PlainName() + ":" + strconv.Itoa(e.exposed)
	if e.protocol == "udp" {
		id += ":udp"
	}
	asked := m.values["id"]
	if asked == "" {
		return id, nil
	}
	if !validID(asked) {
		return id, []problem{{"invalid-id", m.origin["id"], quote(asked) + " cannot be a service's id", quote(id) + " is used"}}
	}
	return asked, nil
}

// validID says whether Consul's agent can be asked about the id: it is part of a
// URL's path there.
func validID(id string) bool {
	if !plainWord(id) || len(id) > maxName || strings.ContainsAny(id, "?#%") {
		return false
	}
	return path.Clean("/"+id) == "/"+id
}

func labelAddress(p Policy, c *Container, address string) (string, []problem) {
	if p.AddressLabel == "" {
		return address, nil
	}
	value := c.Config.Labels[p.AddressLabel]
	if value == "" {
		return address, []problem{{"no-address-label", p.AddressLabel, "the container has no such label", quote(address) + " is used"}}
	}
	text := value
	if i := strings.LastIndexByte(value, '/'); i >= 0 {
		text = value[:i]
	}
	if ip, err := netip.ParseAddr(text); err != nil || ip.IsUnspecified() || ip.Zone() != "" {
		return address, []problem{{"invalid-address", p.AddressLabel, quote(value) + " is not an address", quote(address) + " is used"}}
	}
	return text, nil
}

// Consul's limits for metadata, and ours for what it does not limit.
const (
	maxName      = 255
	maxTag       = 1024
	maxTags      = 256
	maxMetaKey   = 128
	maxMetaValue = 512
	maxMeta      = 63 // Consul's 64, less the mark
)

func tagList(o Observed, e endpoint, m metadata) ([]string, []problem) {
	all := slices.Concat(splitTags(m.values["tags"]), o.ForcedTags)
	if e.protocol == "udp" {
		all = append(all, "udp")
	}
	tags := []string{}
	var problems []problem
	refused := func(what string) {
		problems = append(problems, problem{"invalid-tag", m.origin["tags"], what, "the tag is left out"})
	}
	for _, tag := range all {
		switch {
		case slices.Contains(tags, tag):
		case !plain(tag):
			refused(quote(tag) + " has a control character or is not UTF-8")
		case len(tag) > maxTag:
			refused(fmt.Sprintf("a tag of %d bytes (%s) is longer than %d", len(tag), quote(tag), maxTag))
		case len(tags) == maxTags:
			return tags, append(problems, problem{"too-many-tags", m.origin["tags"],
				fmt.Sprintf("it has more than %d tags", maxTags), "the others are left out"})
		default:
			tags = append(tags, tag)
		}
	}
	return tags, problems
}

var metaKeyPattern = regexp.MustCompile(`^[a-z0-9_-]+$`)

func metaMap(m metadata) (map[string]string, []problem) {
	meta := map[string]string{}
	var problems []problem
	for _, key := range slices.Sorted(maps.Keys(m.values)) {
		value := m.values[key]
		var what string
		switch {
		case key == "id" || key == "tags" || key == "name" || key == markKey:
			continue
		case !metaKeyPattern.MatchString(key) || len(key) > maxMetaKey || strings.HasPrefix(key, "consul-"):
			what = "Consul does not take " + quote(key) + " as a key of service metadata"
		case len(value) > maxMetaValue:
			what = fmt.Sprintf("a value of %d bytes is longer than Consul's %d", len(value), maxMetaValue)
		case !plain(value):
			what = quote(value) + " has a control character or is not UTF-8"
		case len(meta) == maxMeta:
			what = fmt.Sprintf("it has more than the %d that Consul takes", maxMeta)
		default:
			meta[key] = value
			continue
		}
		problems = append(problems, problem{"invalid-metadata", m.origin[key], what, "it is left out of the service's metadata"})
	}
	return meta, problems
}

// containerHealth is the HEALTHCHECK's verdict. One that has not been given yet
// counts as critical: the container asked to be checked first. It may say
// otherwise with SERVICE_CHECK_INITIAL_STATUS.
func containerHealth(p Policy, c *Container, m metadata) *CheckState {
	h := c.State.Health
	if !p.DockerHealth || h == nil {
		return nil
	}
	switch h.Status {
	case "healthy":
		return &CheckState{api.HealthPassing, "healthy"}
	case "unhealthy":
		output := "unhealthy"
		if n := len(h.Log); n > 0 {
			last := h.Log[n-1]
			output = fmt.Sprintf("unhealthy: exit code %d: %s", last.ExitCode, watch.Printable(strings.TrimSpace(last.Output)))
		}
		return &CheckState{api.HealthCritical, output}
	case "starting":
		status := api.HealthCritical
		switch asked := m.values["check_initial_status"]; asked {
		case api.HealthPassing, api.HealthWarning:
			status = asked
		}
		return &CheckState{status, "starting: no verdict yet"}
	}
	return nil
}

// markKey is the metadata key that says which host's registrator a service is
// of, which container it comes from, and what was registered.
const markKey = "mi-lb-registrator"

// mark completes the registration with its mark.
func (s *Service) mark(host string) {
	r := s.Registration
	checks := make([]api.AgentServiceCheck, 0, len(r.Checks))
	for _, check := range r.Checks {
		stable := *check
		if stable.CheckID == dockerCheckID(r.ID) {
			stable.Status = "" // changes without a new registration
		}
		checks = append(checks, stable)
	}
	text, err := json.Marshal([]any{r.ID, r.Name, r.Address, r.Port, r.Tags, r.Meta, checks})
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(text)
	r.Meta[markKey] = mark{host, s.Container, hex.EncodeToString(sum[:8])}.String()
}

// mark is the value of markKey.
type mark struct{ host, container, fingerprint string }

func (m mark) String() string { return m.host + " " + m.container + " " + m.fingerprint }

func parseMark(value string) (mark, bool) {
	parts := strings.Split(value, " ")
	if len(parts) != 3 {
		return mark{}, false
	}
	return mark{parts[0], parts[1], parts[2]}, true
}

// quote is a foreign value in quotes, printable and short.
func quote(s string) string { return strconv.Quote(watch.Printable(s)) }
