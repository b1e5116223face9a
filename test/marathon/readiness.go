package marathon

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// readinessResult is the JSON of what a readiness check found.
type readinessResult struct {
	Name         string             `json:"name"`
	TaskID       string             `json:"taskId"`
	Ready        bool               `json:"ready"`
	LastResponse *readinessResponse `json:"lastResponse,omitempty"`
}

type readinessResponse struct {
	Status      int    `json:"status"`
	ContentType string `json:"contentType"`
	Body        string `json:"body"`
}

// checkReadiness asks until the task is ready once.
func (c *Cluster) checkReadiness(t *task, check ReadinessCheck) {
	interval := max(seconds(check.IntervalSeconds), 50*time.Millisecond)
	timer := time.NewTimer(min(interval, 200*time.Millisecond))
	defer timer.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-timer.C:
		}
		if c.recordReadiness(t, check, c.askReadiness(t, check)) {
			return
		}
		timer.Reset(interval)
	}
}

func (c *Cluster) askReadiness(t *task, check ReadinessCheck) *readinessResponse {
	index := slices.IndexFunc(t.placed, func(p placedPort) bool { return p.name == check.PortName })
	if index < 0 {
		return nil
	}
	address := netip.AddrPortFrom(t.agent.Address, uint16(t.placed[index].given))
	if t.def.mode() == modeContainer && len(t.ips) > 0 {
		address = netip.AddrPortFrom(t.ips[0], uint16(t.placed[index].container))
	}
	ctx, cancel := context.WithTimeout(t.ctx, max(seconds(check.TimeoutSeconds), 50*time.Millisecond))
	defer cancel()
	var dialer net.Dialer
	url := strings.ToLower(check.Protocol) + "://" + address.String() + "/" + strings.TrimPrefix(check.Path, "/")
	status, contentType, body, err := get(ctx, dialer.DialContext, url)
	if err != nil {
		return nil
	}
	return &readinessResponse{Status: status, ContentType: contentType, Body: body}
}

// recordReadiness says whether the task is ready; response is nil for none.
func (c *Cluster) recordReadiness(t *task, check ReadinessCheck, response *readinessResponse) bool {
	c.mu.Lock()
	defer c.unlock()
	ready := response != nil && slices.Contains(check.HTTPStatusCodesForReady, response.Status)
	t.readiness = &readinessResult{Name: check.Name, TaskID: t.id, Ready: ready}
	if check.PreserveLastResponse {
		t.readiness.LastResponse = response
	}
	t.notReady = !ready
	c.touch(t.app)
	return ready
}

// readinessResults are those of an app's tasks that a deployment started.
func (c *Cluster) readinessResults(a *app) []readinessResult {
	results := []readinessResult{}
	for _, t := range a.tasks {
		if t.readiness != nil && !t.killing {
			results = append(results, *t.readiness)
		}
	}
	return results
}
