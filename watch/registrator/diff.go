package registrator

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/watch"
)

// Actual is what the agent has: all of its services, those of others too.
// It is immutable but for [Actual.apply].
type Actual struct {
	Services map[string]ActualService
	// Filtered is set where the token may not read all services. What is missing
	// is then unknown, not absent; that needs no care, for what may not be read
	// may not be written either, and nothing is deregistered for being missing.
	Filtered bool
}

// ActualService is one service as the agent has it.
type ActualService struct {
	Name    string
	Address string
	Port    int
	Tags    []string
	Meta    map[string]string
	// Checks by id, without that of maintenance mode.
	Checks map[string]CheckState
	// Maintenance is why the service is in maintenance mode, nil where it is not.
	Maintenance *string
}

// Kind says what an operation does.
type Kind string

// The operations, by the names they have in metrics and logs.
const (
	Register         Kind = "register"
	Deregister       Kind = "deregister"
	SetHealth        Kind = "set-health"
	EnterMaintenance Kind = "enter-maintenance"
	LeaveMaintenance Kind = "leave-maintenance"
)

// Operation is one write to the agent.
type Operation struct {
	Kind Kind
	ID   string
	// Service is what to register.
	Service *Service
	// Replace drops checks that the service had and the new registration has not.
	Replace bool
	// Health is what to set.
	Health CheckState
	// Reason is that of maintenance mode.
	Reason string
	// Why says what made the operation necessary, for the log.
	Why string
}

// Diff gives the operations, by service id, that make the agent's services what
// is desired. They are to be applied in order; those of different ids do not
// depend on each other. After them, Diff gives none. Services that are not of
// this host's containers are never among them: if a container claims such an id,
// that is a finding.
func Diff(p Policy, desired *Desired, actual *Actual) (map[string][]Operation, []watch.Finding) {
	operations := map[string][]Operation{}
	var findings []watch.Finding
	for id, s := range desired.Services {
		is, exists := actual.Services[id]
		if exists && !adoptable(p, s, is) {
			findings = append(findings, watch.Finding{
				Code: "id-taken", Source: "docker/" + s.Container, Service: watch.Printable(s.Registration.Name), Key: "SERVICE_ID",
				Message: fmt.Sprintf("the agent has a service %s with the id %s that is not of this host's containers", quote(is.Name), quote(id)),
				Instead: "it is left alone, and the container is not registered; deregister it if nobody needs it, or use another id",
			})
			continue
		}
		if steps := toward(s, is, exists); len(steps) > 0 {
			operations[id] = steps
		}
	}
	for id, is := range actual.Services {
		if _, wanted := desired.Services[id]; wanted {
			continue
		}
		if why := ghost(p, desired, id, is); why != "" {
			operations[id] = []Operation{{Kind: Deregister, ID: id, Why: why}}
		}
	}
	slices.SortFunc(findings, watch.Finding.Compare)
	return operations, findings
}

// toward gives the operations that make the service what it should be.
func toward(s *Service, is ActualService, exists bool) []Operation {
	if s.Maintenance != "" {
		// It is about to go, or takes no traffic: nothing but that matters now.
		if exists && is.Maintenance == nil {
			return []Operation{{Kind: EnterMaintenance, ID: s.ID(), Reason: s.Maintenance, Why: s.Maintenance}}
		}
		return nil
	}
	var steps []Operation
	if why := changed(s, is, exists); why != "" {
		steps = append(steps, Operation{Kind: Register, ID: s.ID(), Service: s, Replace: exists, Why: why})
		if exists && is.Maintenance != nil && !ours(*is.Maintenance) {
			// Replacing checks may end an operator's maintenance mode.
			steps = append(steps, Operation{Kind: EnterMaintenance, ID: s.ID(), Reason: *is.Maintenance, Why: "it was in maintenance before"})
		}
	}
	if exists && is.Maintenance != nil && ours(*is.Maintenance) {
		steps = append(steps, Operation{Kind: LeaveMaintenance, ID: s.ID(), Why: "its container takes traffic again"})
	}
	if s.Health != nil {
		has, known := is.Checks[dockerCheckID(s.ID())]
		if exists && (len(steps) > 0 || !known || has.Status != s.Health.Status) {
			steps = append(steps, Operation{Kind: SetHealth, ID: s.ID(), Health: *s.Health, Why: "HEALTHCHECK: " + s.Health.Output})
		}
	}
	return steps
}

// changed says why the service must be registered, empty if it need not.
func changed(s *Service, is ActualService, exists bool) string {
	r := s.Registration
	switch {
	case !exists:
		return "it is new"
	case is.Meta[markKey] == "":
		return "it was registered by another registrator"
	case is.Meta[markKey] != r.Meta[markKey]:
		return "its container changed"
	case is.Name != r.Name || is.Address != r.Address || is.Port != r.Port ||
		!slices.Equal(is.Tags, r.Tags) || !maps.Equal(is.Meta, r.Meta):
		return "somebody changed it"
	}
	for _, check := range r.Checks {
		if _, known := is.Checks[check.CheckID]; !known {
			return "its check is missing"
		}
	}
	return ""
}

const reasonPrefix = "mi-lb registrator: "

// ours says whether maintenance mode was set by a registrator rather than by a person.
func ours(reason string) bool { return strings.HasPrefix(reason, reasonPrefix) }

// adoptable says whether a service that exists may be written over: it carries
// this host's mark, or it carries none and is what gliderlabs/registrator would
// have registered for the same container.
func adoptable(p Policy, s *Service, is ActualService) bool {
	if value, marked := is.Meta[markKey]; marked {
		m, ok := parseMark(value)
		return ok && m.host == p.Host
	}
	if m := foreignID.FindStringSubmatch(s.ID()); m != nil && m[1] == p.Host {
		return true
	}
	r := s.Registration
	return is.Name == r.Name && is.Address == r.Address && is.Port == r.Port
}

// foreignID is the form of the ids that gliderlabs/registrator gives.
var foreignID = regexp.MustCompile(`^(.+?):([a-zA-Z0-9][a-zA-Z0-9_.-]+):[0-9]+(?::udp)?$`)

// ghost says why a service that no container asks for is to go, empty if it is not.
func ghost(p Policy, desired *Desired, id string, is ActualService) string {
	value, marked := is.Meta[markKey]
	if !marked {
		if m := foreignID.FindStringSubmatch(id); p.Cleanup && m != nil && m[1] == p.Host {
			return "gliderlabs/registrator left it, and no container " + m[2] + " asks for it"
		}
		return ""
	}
	m, ok := parseMark(value)
	if !ok || m.host != p.Host || desired.Keep[m.container] {
		return ""
	}
	return "container " + m.container + " does not run or does not ask for it"
}

// apply notes an operation that succeeded.
func (a *Actual) apply(op Operation) {
	is := a.Services[op.ID]
	switch op.Kind {
	case Deregister:
		delete(a.Services, op.ID)
		return
	case Register:
		r := op.Service.Registration
		checks := map[string]CheckState{}
		for _, check := range r.Checks {
			state := CheckState{Status: check.Status}
			if state.Status == "" {
				state.Status = api.HealthCritical
			}
			if had, known := is.Checks[check.CheckID]; known {
				state = had // the agent keeps what the check last said
			}
			checks[check.CheckID] = state
		}
		is = ActualService{Name: r.Name, Address: r.Address, Port: r.Port, Tags: r.Tags, Meta: r.Meta, Checks: checks, Maintenance: is.Maintenance}
	case SetHealth:
		is.Checks = maps.Clone(is.Checks)
		if is.Checks == nil {
			is.Checks = map[string]CheckState{}
		}
		is.Checks[dockerCheckID(op.ID)] = op.Health
	case EnterMaintenance:
		is.Maintenance = &op.Reason
	case LeaveMaintenance:
		is.Maintenance = nil
	}
	a.Services[op.ID] = is
}
