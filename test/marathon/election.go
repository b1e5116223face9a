package marathon

import (
	"context"
	"fmt"
	"time"
)

// Leader is the index of the leading member, -1 while there is none.
func (c *Cluster) Leader() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader
}

// Elect makes another member lead, after the time given without any leader. As
// in Marathon, event streams are closed and the results of Marathon's own
// health checks are lost. A negative member lets the next one that runs lead.
func (c *Cluster) Elect(member int, gap time.Duration) {
	c.mu.Lock()
	c.elections++
	election := c.elections
	before := c.leader
	c.leader = -1
	c.mu.Unlock()
	c.hub.hangUp()
	win := func() {
		c.mu.Lock()
		defer c.unlock()
		if c.elections != election || c.closed {
			return
		}
		if member < 0 {
			member = c.nextMember(before)
		}
		if member < 0 {
			return // nobody is up: the next to start will lead
		}
		c.leader = member
		c.loseHealth()
		close(c.elected)
		c.elected = make(chan struct{})
	}
	if gap <= 0 {
		win()
		return
	}
	time.AfterFunc(gap, win)
}

// nextMember is the next one that is up, -1 for none.
func (c *Cluster) nextMember(after int) int {
	for i := range c.members {
		index := (max(after, 0) + 1 + i) % len(c.members)
		if c.members[index].up() {
			return index
		}
	}
	return -1
}

// LoseHealth forgets the results of Marathon's own health checks.
func (c *Cluster) LoseHealth() {
	c.mu.Lock()
	defer c.unlock()
	c.loseHealth()
}

// StopMember takes a member down: its address refuses connections. If it led,
// another one is elected.
func (c *Cluster) StopMember(index int) {
	c.members[index].stop()
	if c.Leader() == index {
		c.Elect(-1, c.options.ElectionGap)
	}
}

// StartMember brings a member back up, on its address.
func (c *Cluster) StartMember(index int) error {
	if err := c.members[index].start(); err != nil {
		return fmt.Errorf("start member %d: %w", index, err)
	}
	if c.Leader() < 0 {
		c.Elect(index, 0)
	}
	return nil
}

// awaitLeader gives the leader, waiting for one as long as a member holds a
// request; -1 if there is still none.
func (c *Cluster) awaitLeader(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, c.options.ElectionHold)
	defer cancel()
	for {
		c.mu.Lock()
		leader, elected := c.leader, c.elected
		c.mu.Unlock()
		if leader >= 0 {
			return leader
		}
		select {
		case <-elected:
		case <-ctx.Done():
			return -1
		}
	}
}
