package marathon

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/test/marathon/process"
)

// chooseAgent takes the agent that runs the fewest tasks of the app and then
// the fewest at all, among those that the app's constraints allow.
func (c *Cluster) chooseAgent(a *app) (*Agent, error) {
	ofApp := map[string]int{}
	for _, t := range a.tasks {
		if !t.killing {
			ofApp[t.agent.ID]++
		}
	}
	var best *Agent
	for i := range c.options.Agents {
		agent := &c.options.Agents[i]
		if !slices.ContainsFunc(a.target.Constraints, func(constraint []string) bool { return !c.allows(constraint, agent, a) }) &&
			(best == nil || ofApp[agent.ID] < ofApp[best.ID] || ofApp[agent.ID] == ofApp[best.ID] && c.load[agent.ID] < c.load[best.ID]) {
			best = agent
		}
	}
	if best == nil {
		return nil, fmt.Errorf("no agent satisfies the constraints %v", a.target.Constraints)
	}
	return best, nil
}

// allows evaluates one constraint.
func (c *Cluster) allows(constraint []string, agent *Agent, a *app) bool {
	attribute := func(agent *Agent) string {
		if constraint[0] == "hostname" || constraint[0] == "@hostname" {
			return agent.Hostname
		}
		return agent.Attributes[constraint[0]]
	}
	value := ""
	if len(constraint) > 2 {
		value = constraint[2]
	}
	var taken []string
	for _, t := range a.tasks {
		if !t.killing {
			taken = append(taken, attribute(t.agent))
		}
	}
	switch constraint[1] {
	case "UNIQUE":
		return !slices.Contains(taken, attribute(agent))
	case "CLUSTER":
		return (value == "" || attribute(agent) == value) && (len(taken) == 0 || slices.Contains(taken, attribute(agent)))
	case "IS":
		return attribute(agent) == value
	case "LIKE", "UNLIKE":
		matches, err := regexp.MatchString("^(?:"+value+")$", attribute(agent))
		return err == nil && matches == (constraint[1] == "LIKE")
	}
	return true // GROUP_BY and MAX_PER: the fewest tasks first does it
}

// place gives a task host ports and addresses of its own.
func (c *Cluster) place(t *task) (err error) {
	defer func() {
		if err != nil {
			c.giveBack(t)
		}
	}()
	mode := t.def.mode()
	for i, wanted := range t.def.ports() {
		placed := placedPort{port: wanted}
		if wanted.hostPort != nil {
			if err := c.takeHostPort(t, &placed, *wanted.hostPort); err != nil {
				return fmt.Errorf("port %d of %s: %w", i, t.app, err)
			}
			t.ports = append(t.ports, placed.given)
		}
		if mode != modeHost {
			placed.container = wanted.containerPort
			if placed.container == 0 {
				placed.container = placed.given
			}
		}
		t.placed = append(t.placed, placed)
	}
	switch mode {
	case modeBridge:
		t.ips = []netip.Addr{c.bridgeAddress()}
	case modeContainer:
		return c.takeContainerAddresses(t)
	}
	return nil
}

// takeHostPort finds a port of the agent that is really free, or takes the one
// that is wanted.
func (c *Cluster) takeHostPort(t *task, placed *placedPort, wanted int) error {
	if wanted != 0 {
		if !c.tryHostPort(t, placed, wanted, true) {
			return fmt.Errorf("host port %d is taken", wanted)
		}
		return nil
	}
	agent := t.agent
	size := agent.PortMax - agent.PortMin + 1
	start := rand.IntN(size) // emulators side by side seldom meet
	for i := range size {
		if c.tryHostPort(t, placed, agent.PortMin+(start+i)%size, false) {
			return nil
		}
	}
	return fmt.Errorf("all host ports from %d to %d are taken", agent.PortMin, agent.PortMax)
}

func (c *Cluster) tryHostPort(t *task, placed *placedPort, number int, fixed bool) bool {
	key := hostPort{t.agent.Address, number}
	if t.def.mode() == modeHost && c.options.Runner == nil {
		key.address = netip.IPv4Unspecified() // the process will bind where it likes
	}
	if c.hostPorts[key] {
		return false
	}
	if !c.options.Fake && (!fixed || t.def.mode() == modeHost) {
		// Emulators side by side keep off each other's ports also before a
		// process listens on them.
		claim, err := process.ClaimPort(number)
		if err != nil {
			return false
		}
		defer func() {
			if placed.given == number {
				t.claims = append(t.claims, claim)
			} else {
				claim.Close()
			}
		}()
	}
	if !c.options.Fake && strings.Contains(placed.protocol, "tcp") {
		reserved, err := process.Reserve(netip.AddrPortFrom(key.address, uint16(number)), fixed)
		if err != nil {
			return false
		}
		if t.def.mode() == modeHost {
			reserved.Close() // the process itself listens
		} else {
			placed.reserved = reserved
		}
	}
	c.hostPorts[key] = true
	t.held = append(t.held, key)
	placed.given = number
	return true
}

// hostPort is a port of the machine that a task holds.
type hostPort struct {
	address netip.Addr
	number  int
}

// bridgeAddress is a new one as docker0 gives them; the host cannot reach it.
func (c *Cluster) bridgeAddress() netip.Addr {
	const gateway = 1
	c.lastBridge = max(c.lastBridge, gateway)%(1<<16-2) + 1
	return netip.AddrFrom4([4]byte{172, 17, byte(c.lastBridge >> 8), byte(c.lastBridge)})
}

// takeContainerAddresses gives the task a loopback address per network, on
// which its container ports are free.
func (c *Cluster) takeContainerAddresses(t *task) error {
	for range t.def.Networks {
		address := t.agent.ContainerNetwork.Masked().Addr().Next()
		for ; ; address = address.Next() {
			if !t.agent.ContainerNetwork.Contains(address) {
				return fmt.Errorf("all addresses of %s are taken", t.agent.ContainerNetwork)
			}
			if !c.containerIPs[address] && c.reserveContainerPorts(t, address) {
				break
			}
		}
		c.containerIPs[address] = true
		t.ips = append(t.ips, address)
	}
	return nil
}

func (c *Cluster) reserveContainerPorts(t *task, address netip.Addr) bool {
	if c.options.Fake {
		return true
	}
	var reserved []*process.Reservation
	for _, placed := range t.placed {
		if !strings.Contains(placed.protocol, "tcp") {
			continue
		}
		r, err := process.Reserve(netip.AddrPortFrom(address, uint16(placed.container)), true)
		if err != nil {
			for _, r := range reserved {
				r.Close()
			}
			return false
		}
		reserved = append(reserved, r)
	}
	t.reserved = append(t.reserved, reserved...)
	return true
}

// giveBack gives back what the task was placed on.
func (c *Cluster) giveBack(t *task) {
	for _, placed := range t.placed {
		if placed.reserved != nil {
			placed.reserved.Close()
		}
	}
	for _, reserved := range t.reserved {
		reserved.Close()
	}
	for _, claim := range t.claims {
		claim.Close()
	}
	for _, key := range t.held {
		delete(c.hostPorts, key)
	}
	for _, address := range t.ips {
		delete(c.containerIPs, address)
	}
	t.held, t.reserved, t.claims = nil, nil, nil
}

// forward carries the reserved ports to where the task listens.
func (t *task) forward() {
	for _, placed := range t.placed {
		if placed.reserved != nil {
			t.proc.Forward(placed.reserved, netip.AddrPortFrom(t.ips[0], uint16(placed.container)))
		}
	}
	for _, reserved := range t.reserved {
		t.proc.Forward(reserved, reserved.Addr())
	}
}
