package component

import (
	"context"
	"io"
	"net"
	"net/http"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/secrets"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// Platform is everything that is known before anything is changed.
type Platform struct {
	Cluster *cluster.Cluster
	Secrets *secrets.Bundle
	// Facts are by node; a node that could not be reached has none.
	Facts map[string]*facts.Facts
	// Program is the path of the mi-lb that is installed on nodes, on the operator's
	// machine.
	Program string
}

// Problem is why something cannot be done, or should not be.
type Problem struct {
	// Fatal stops the run before anything is changed.
	Fatal bool `json:"fatal"`
	// Code is stable and short: "port-taken", "clock-skewed".
	Code string `json:"code"`
	// Node is the machine; empty where it is the platform's.
	Node      string `json:"node,omitempty"`
	Component string `json:"component,omitempty"`
	// Message says what is wrong, and Advice what to do.
	Message string `json:"message"`
	Advice  string `json:"advice"`
}

// Host is a machine that is reached; [*ssh.Host] is one.
type Host interface {
	Name() string
	Run(ctx context.Context, c ssh.Command) (ssh.Result, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	HTTPClient(network, address string) *http.Client
}

// Access gives the machines that are reached.
type Access interface {
	// Host is the machine of a node. The error says why it is not reached.
	Host(node string) (Host, error)
}

// Component is a program of the platform, or what belongs together.
type Component interface {
	// Name is what it is called in plans and in --limit: "zookeeper".
	Name() string
	// Variables are those of the inventory that it reads.
	Variables() []cluster.VariableDoc
	// On says whether a node has it.
	On(n *cluster.Node) bool
	// Desired is what a node that has it should be. It is pure; problems with what
	// the inventory or the facts say come back with it, and the part is nil if it
	// cannot be told because of them.
	Desired(p Platform, n *cluster.Node) (*desired.Part, []Problem)
	// Healthy says whether the component works on that node as a member of
	// whatever it is part of: quorum complete, leader known, registered. The error
	// says what is missing; it is called again until it is nil or patience ends.
	Healthy(ctx context.Context, p Platform, n *cluster.Node, a Access) error
}

// Checker looks at more than files: what would keep the component from working on
// that node. It is pure.
type Checker interface {
	Check(p Platform, n *cluster.Node) []Problem
}

// Roller knows the order in which members are restarted, and what must hold before
// each. Components without it are restarted one datacenter's quorum at a time, in
// the inventory's order.
type Roller interface {
	// Order sorts the nodes of one datacenter that are to be restarted: followers
	// first, the leader last.
	Order(ctx context.Context, p Platform, nodes []*cluster.Node, a Access) ([]*cluster.Node, error)
	// BeforeRestart hands over what the node holds, and says if a restart now would
	// cost the quorum. AfterRestart undoes what it did; both may do nothing.
	BeforeRestart(ctx context.Context, p Platform, n *cluster.Node, a Access) error
	AfterRestart(ctx context.Context, p Platform, n *cluster.Node, a Access) error
}

// Quorate is a component whose members only work together, and that can tell whether
// they do: where they do not, no restart costs anything.
type Quorate interface {
	// Quorum is how the members of a datacenter stand now. The error is that it
	// cannot be told; a member that does not answer on its own machine is no error.
	Quorum(ctx context.Context, p Platform, d *cluster.Datacenter, a Access) (Quorum, error)
}

// Quorum is how the members of a datacenter stand.
type Quorum struct {
	// Serving are the nodes whose member takes part.
	Serving []string
	// Lost is why they do not work together; empty if they do.
	Lost string
}

// Saver can write down a component's own state, as is done before members of a quorum
// are changed.
type Saver interface {
	// Save writes the state of a datacenter, complete and checked, or fails. Where
	// nobody leads it is [ErrNotRunning]: there is none to save.
	Save(ctx context.Context, p Platform, d *cluster.Datacenter, a Access, w io.Writer) error
}

// Action is something that is not on a machine but in the component's own state:
// a policy, a token, a znode, a keyring.
type Action struct {
	// ID is stable, "policy/edge"; Title is for people.
	ID    string `json:"id"`
	Title string `json:"title"`
	// Datacenter is whose state changes, Node through which.
	Datacenter string `json:"datacenter"`
	Node       string `json:"node"`
	// Do does it. It is safe to do again.
	Do func(ctx context.Context) error `json:"-"`
}

// Configurer has state of its own that must be brought about through its API, when
// it is healthy.
type Configurer interface {
	// Pending are the actions that are still to be taken in a datacenter: none when
	// all is as it should be. It changes nothing. A component that does not run yet
	// is [ErrNotRunning]: all actions are to be expected.
	Pending(ctx context.Context, p Platform, d *cluster.Datacenter, a Access) ([]Action, error)
	// Expected names what Pending will have if the component never ran.
	Expected(p Platform, d *cluster.Datacenter) []Action
}
