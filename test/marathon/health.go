package marathon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// health is what one check says of one task.
type health struct {
	known               bool
	alive               bool
	consecutiveFailures int
	firstSuccess        time.Time
	lastSuccess         time.Time
	lastFailure         time.Time
	lastFailureCause    string
}

// healthDocument is a health result's JSON.
type healthDocument struct {
	Alive               bool    `json:"alive"`
	ConsecutiveFailures int     `json:"consecutiveFailures"`
	FirstSuccess        *string `json:"firstSuccess"`
	LastFailure         *string `json:"lastFailure"`
	LastFailureCause    *string `json:"lastFailureCause"`
	LastSuccess         *string `json:"lastSuccess"`
	InstanceID          string  `json:"instanceId,omitempty"`
	TaskID              string  `json:"taskId,omitempty"`
}

func (c *Cluster) healthDocuments(t *task) []healthDocument {
	documents := []healthDocument{}
	for _, result := range t.health {
		if !result.known {
			continue
		}
		document := healthDocument{
			Alive: result.alive, ConsecutiveFailures: result.consecutiveFailures,
			FirstSuccess: optionalTime(result.firstSuccess), LastFailure: optionalTime(result.lastFailure),
			LastSuccess: optionalTime(result.lastSuccess),
		}
		if result.lastFailureCause != "" {
			document.LastFailureCause = &result.lastFailureCause
		}
		if c.release.instances() {
			document.InstanceID = t.instanceID
		} else {
			document.TaskID = t.id
		}
		documents = append(documents, document)
	}
	return documents
}

func optionalTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	text := timestamp(t)
	return &text
}

// byMarathon: the check is made by Marathon, not by Mesos on the agent; its
// results are lost when another member leads.
func (h HealthCheck) byMarathon() bool {
	return h.Protocol == "HTTP" || h.Protocol == "HTTPS" || h.Protocol == "TCP"
}

// watchHealth runs the task's checks until it ends. Called with the lock held.
func (c *Cluster) watchHealth(t *task) {
	for i, check := range t.def.HealthChecks {
		c.background.Go(func() { c.checkHealth(t, i, check) })
	}
	if len(t.def.ReadinessChecks) > 0 {
		t.notReady = true
		c.background.Go(func() { c.checkReadiness(t, t.def.ReadinessChecks[0]) })
	}
}

func (c *Cluster) checkHealth(t *task, index int, check HealthCheck) {
	interval := max(seconds(check.IntervalSeconds), 50*time.Millisecond)
	first := min(interval, 200*time.Millisecond)
	if !check.byMarathon() {
		first = seconds(check.DelaySeconds)
	}
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-timer.C:
		}
		ctx, cancel := context.WithTimeout(t.ctx, max(seconds(check.TimeoutSeconds), 50*time.Millisecond))
		err := c.probe(ctx, t, check)
		cancel()
		if t.ctx.Err() != nil {
			return
		}
		c.recordHealth(t, index, check, err)
		timer.Reset(interval)
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// recordHealth takes a check's result; err is why it failed.
func (c *Cluster) recordHealth(t *task, index int, check HealthCheck, err error) {
	c.mu.Lock()
	defer c.unlock()
	if terminal(t.state) || t.killing {
		return
	}
	now := time.Now()
	result := &t.health[index]
	before := *result
	if err == nil {
		result.known, result.alive, result.consecutiveFailures, result.lastSuccess = true, true, 0, now
		if result.firstSuccess.IsZero() {
			result.firstSuccess = now
		}
	} else {
		if result.firstSuccess.IsZero() && now.Sub(t.startedAt) < seconds(check.GracePeriodSeconds) {
			return
		}
		result.known, result.alive, result.lastFailure = true, false, now
		result.lastFailureCause = err.Error()
		result.consecutiveFailures++
		c.publish("failed_health_check_event", "appId", t.app, "taskId", t.instanceID, "healthCheck", check)
		// Marathon looks at the failures before this one: it kills on the
		// (maxConsecutiveFailures + 1)th.
		if check.MaxConsecutiveFailures > 0 && before.consecutiveFailures >= check.MaxConsecutiveFailures {
			c.publishUnhealthyKill(t, err.Error())
			t.unhealthy = true
			c.kill(t)
		}
	}
	if !before.known || before.alive != result.alive {
		c.publishHealth(t, result.alive)
	}
	c.touch(t.app)
}

// probe makes one check.
func (c *Cluster) probe(ctx context.Context, t *task, check HealthCheck) error {
	if check.Protocol == "COMMAND" {
		if t.proc == nil {
			return nil // the agent's business
		}
		if err := t.proc.Run(ctx, []string{"/bin/sh", "-c", check.Command.Value}); err != nil {
			return fmt.Errorf("Command health check failed: %w", err)
		}
		return nil
	}
	address, inside, err := t.checkAddress(check)
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		if inside {
			return t.proc.Dial(ctx, address)
		}
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", address.String())
	}
	if strings.HasSuffix(check.Protocol, "TCP") {
		conn, err := dial(ctx, "", "")
		if err != nil {
			return err
		}
		return conn.Close()
	}
	scheme := "http"
	if strings.HasSuffix(check.Protocol, "HTTPS") {
		scheme = "https"
	}
	status, _, _, err := get(ctx, dial, scheme+"://"+address.String()+"/"+strings.TrimPrefix(check.Path, "/"))
	if err != nil {
		return err
	}
	if status < 200 || status >= 400 {
		return fmt.Errorf("%d %s", status, http.StatusText(status))
	}
	return nil
}

// checkAddress is where a check goes: Marathon's own checks to where the world
// reaches the task, Mesos's to the task's own loopback.
func (t *task) checkAddress(check HealthCheck) (address netip.AddrPort, inside bool, err error) {
	inside = !check.byMarathon() && t.proc != nil
	host := t.agent.Address
	if inside {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	} else if t.def.mode() == modeContainer && len(t.ips) > 0 {
		host = t.ips[0]
	}
	if check.Port != nil {
		return netip.AddrPortFrom(host, uint16(*check.Port)), inside, nil
	}
	if check.PortIndex == nil || *check.PortIndex >= len(t.placed) {
		return netip.AddrPort{}, inside, errors.New("the health check has no port")
	}
	placed := t.placed[*check.PortIndex]
	port := placed.given
	if t.def.mode() == modeContainer || inside && t.def.mode() == modeBridge {
		port = placed.container
	}
	return netip.AddrPortFrom(host, uint16(port)), inside, nil
}

// get makes one GET without following redirects or checking certificates, as
// Marathon's checks do.
func get(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), url string) (status int, contentType, body string, err error) {
	client := http.Client{
		Transport: &http.Transport{
			DialContext: dial, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // Marathon does not verify either
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", "", fmt.Errorf("check %s: %w", url, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", "", err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	return response.StatusCode, response.Header.Get("Content-Type"), string(read), err
}

// loseHealth forgets what Marathon's own checks found, as another leader does.
func (c *Cluster) loseHealth() {
	for id, a := range c.apps {
		for _, t := range a.tasks {
			for i := range t.health {
				if i < len(t.def.HealthChecks) && t.def.HealthChecks[i].byMarathon() {
					t.health[i] = health{}
				}
			}
		}
		c.touch(id)
	}
}
