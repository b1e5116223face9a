package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// Ref names a server as it runs.
type Ref struct {
	// ID is the routing backend's.
	ID string
	// Backend and Server are HAProxy's names.
	Backend string
	Server  string
}

func (r Ref) String() string { return r.Backend + "/" + r.Server }

// Op is an operation on a running HAProxy.
type Op interface {
	// Commands are what to send, in order. All must succeed for the operation to have.
	Commands() ([]string, error)
	// Kind is a stable word, fit for a metric's label.
	Kind() string
	// String is the operation as a person reads it.
	String() string
	apply(*edit)
}

// AddServer adds a server and gives it its state.
type AddServer struct {
	Ref    Ref
	Server routing.Server
	// Args are what follows the name in `add server`.
	Args string
	// DynamicCookie: the backend sticks by cookie, which an added server gets only
	// when it is asked for.
	DynamicCookie bool
}

// SetServerAddress changes where a server is. Connections that it has stay.
type SetServerAddress struct {
	Ref     Ref
	Address netip.AddrPort
}

// SetServerWeight sets the weight, 0 to 256.
type SetServerWeight struct {
	Ref    Ref
	Weight int
}

// SetServerState sets the administrative state.
type SetServerState struct {
	Ref   Ref
	State routing.ServerState
}

// SetServerMaxConn sets the most connections; 0 is no limit.
type SetServerMaxConn struct {
	Ref     Ref
	MaxConn int
}

// ShutdownSessions ends the sessions that a server has, at once.
type ShutdownSessions struct{ Ref Ref }

// DelServer deletes a server that is in maintenance. HAProxy refuses while it has
// connections.
type DelServer struct{ Ref Ref }

// AddMap adds a row whose key is not there.
type AddMap struct{ Map, Key, Value string }

// SetMap changes the value of a row that is there.
type SetMap struct{ Map, Key, Value string }

// DelMap removes the rows with the key.
type DelMap struct{ Map, Key string }

// AddSpare makes a backend without servers that can become any of its shape.
type AddSpare struct {
	// Name is HAProxy's, From that of the section of defaults.
	Name, From, Shape string
}

// ClaimSpare makes a backend that was rendered ahead the one with the id. It needs no
// command.
type ClaimSpare struct {
	ID string
	// Backend is HAProxy's name of it.
	Backend string
	// From is the backend that it was, and that nobody wants any more; "" if it was none.
	From    string
	shape   string
	options *routing.Backend
}

func (o AddServer) Kind() string        { return "add-server" }
func (o SetServerAddress) Kind() string { return "set-address" }
func (o SetServerWeight) Kind() string  { return "set-weight" }
func (o SetServerState) Kind() string   { return "set-state" }
func (o SetServerMaxConn) Kind() string { return "set-maxconn" }
func (o ShutdownSessions) Kind() string { return "shutdown-sessions" }
func (o DelServer) Kind() string        { return "del-server" }
func (o AddMap) Kind() string           { return "add-map" }
func (o SetMap) Kind() string           { return "set-map" }
func (o DelMap) Kind() string           { return "del-map" }
func (o AddSpare) Kind() string         { return "add-backend" }
func (o ClaimSpare) Kind() string       { return "claim-spare" }

func (o AddServer) String() string {
	return fmt.Sprintf("add server %s %s %s", o.Ref, o.Args, o.Server.State)
}
func (o SetServerAddress) String() string { return fmt.Sprintf("set address %s %s", o.Ref, o.Address) }
func (o SetServerWeight) String() string  { return fmt.Sprintf("set weight %s %d", o.Ref, o.Weight) }
func (o SetServerState) String() string   { return fmt.Sprintf("set state %s %s", o.Ref, o.State) }
func (o SetServerMaxConn) String() string { return fmt.Sprintf("set maxconn %s %d", o.Ref, o.MaxConn) }
func (o ShutdownSessions) String() string { return fmt.Sprintf("shutdown sessions %s", o.Ref) }
func (o DelServer) String() string        { return fmt.Sprintf("del server %s", o.Ref) }
func (o AddMap) String() string           { return fmt.Sprintf("add map %s %s %s", o.Map, o.Key, o.Value) }
func (o SetMap) String() string           { return fmt.Sprintf("set map %s %s %s", o.Map, o.Key, o.Value) }
func (o DelMap) String() string           { return fmt.Sprintf("del map %s %s", o.Map, o.Key) }
func (o AddSpare) String() string         { return fmt.Sprintf("add backend %s from %s", o.Name, o.From) }
func (o ClaimSpare) String() string {
	text := fmt.Sprintf("claim spare %s for %s", o.Backend, o.ID)
	if o.From != "" {
		text += ", once " + o.From
	}
	return text
}

func one(cmd string, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	return []string{cmd}, nil
}

func (o AddServer) Commands() ([]string, error) {
	type built struct {
		cmd string
		err error
	}
	var all []built
	add := func(cmd string, err error) { all = append(all, built{cmd, err}) }
	b, s := o.Ref.Backend, o.Ref.Server
	add(runtime.AddServer(b, s, o.Args))
	if o.DynamicCookie {
		add(runtime.Command("enable dynamic-cookie backend", b))
	}
	for word := range strings.FieldsSeq(o.Args) {
		if word == "check" {
			add(runtime.EnableHealth(b, s))
			break
		}
	}
	// The configuration has no word for drain: it is written as weight 0.
	if o.Server.State == routing.Drain {
		add(runtime.SetServerWeight(b, s, o.Server.Weight))
	}
	// It is born in maintenance.
	if o.Server.State != routing.Maint {
		add(runtime.SetServerState(b, s, string(o.Server.State)))
	}
	cmds := make([]string, len(all))
	var errs []error
	for i, c := range all {
		cmds[i] = c.cmd
		errs = append(errs, c.err)
	}
	return cmds, errors.Join(errs...)
}

func (o SetServerAddress) Commands() ([]string, error) {
	return one(runtime.SetServerAddress(o.Ref.Backend, o.Ref.Server, o.Address))
}

func (o SetServerWeight) Commands() ([]string, error) {
	return one(runtime.SetServerWeight(o.Ref.Backend, o.Ref.Server, o.Weight))
}

func (o SetServerState) Commands() ([]string, error) {
	return one(runtime.SetServerState(o.Ref.Backend, o.Ref.Server, string(o.State)))
}

func (o SetServerMaxConn) Commands() ([]string, error) {
	return one(runtime.SetServerMaxConn(o.Ref.Backend, o.Ref.Server, o.MaxConn))
}

func (o ShutdownSessions) Commands() ([]string, error) {
	return one(runtime.ShutdownSessions(o.Ref.Backend, o.Ref.Server))
}

func (o DelServer) Commands() ([]string, error) {
	return one(runtime.DelServer(o.Ref.Backend, o.Ref.Server))
}
func (o AddMap) Commands() ([]string, error)     { return one(runtime.AddMap(o.Map, o.Key, o.Value)) }
func (o SetMap) Commands() ([]string, error)     { return one(runtime.SetMap(o.Map, o.Key, o.Value)) }
func (o DelMap) Commands() ([]string, error)     { return one(runtime.DelMap(o.Map, o.Key)) }
func (o ClaimSpare) Commands() ([]string, error) { return nil, nil }

func (o AddSpare) Commands() ([]string, error) {
	add, err := runtime.Command("add backend", o.Name, "from", o.From)
	if err != nil {
		return nil, err
	}
	// Until then no rule leads to it.
	publish, err := runtime.Command("publish backend", o.Name)
	return []string{add, publish}, err
}

// Script is operations as commands, which knows what belongs to which.
type Script struct {
	Ops      []Op
	Commands []string
	// ends[i] is where the commands of operation i end.
	ends []int
	// invalid are operations that cannot be said; they have no commands.
	invalid map[int]error
}

// Failure is an operation that did not succeed.
type Failure struct {
	Op  Op
	Err error
}

// NewScript is the script of the operations. One that cannot be said as commands
// fails in [Script.Outcome] and keeps none of the others from being sent.
func NewScript(ops []Op) Script {
	s := Script{Ops: ops, invalid: map[int]error{}}
	for i, op := range ops {
		cmds, err := op.Commands()
		if err != nil {
			s.invalid[i] = err
		} else {
			s.Commands = append(s.Commands, cmds...)
		}
		s.ends = append(s.ends, len(s.Commands))
	}
	return s
}

// Outcome says which operations succeeded and which did not, by the replies to the
// script's commands. Operations whose replies are missing are in neither: what
// became of them is not known.
func (s Script) Outcome(replies []runtime.Reply) (done []Op, failed []Failure) {
	from := 0
	for i, op := range s.Ops {
		end := s.ends[i]
		if err := s.invalid[i]; err != nil {
			failed = append(failed, Failure{op, err})
			continue
		}
		if end > len(replies) {
			break
		}
		var errs []error
		for _, r := range replies[from:end] {
			errs = append(errs, r.Err())
		}
		if err := errors.Join(errs...); err != nil {
			failed = append(failed, Failure{op, err})
		} else {
			done = append(done, op)
		}
		from = end
	}
	return done, failed
}
