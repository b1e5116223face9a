package marathon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	marathon "github.com/gambol99/go-marathon"
)

// Client gives commands to a Marathon cluster, and asks how it is. App
// documents are none of its business: go-marathon, which it is built on, would
// lose fields that it does not know. It is safe for concurrent use.
type Client struct{ api *api }

// Info is what a cluster says about itself.
type Info struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Leader is host:port; empty while there is none.
	Leader      string `json:"leader"`
	FrameworkID string `json:"frameworkId"`
}

// Deployment is one that is going on.
type Deployment struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	// Step is the current one of Steps, from 1.
	Step  int `json:"step"`
	Steps int `json:"steps"`
	// Apps that it affects, sorted.
	Apps []string `json:"apps"`
}

// NewClient needs no contact with the cluster.
func NewClient(c Config) (*Client, error) {
	members, err := c.members()
	if err != nil {
		return nil, err
	}
	api, err := newAPI(c, members)
	if err != nil {
		return nil, err
	}
	return &Client{api: api}, nil
}

// Close gives up idle connections.
func (c *Client) Close() { c.api.close() }

// Info asks for name, version and leader.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var info Info
	err := c.call(ctx, "asking Marathon for its version", func(m marathon.Marathon) error {
		got, err := m.Info()
		if err == nil {
			info = Info{Name: got.Name, Version: got.Version, Leader: got.Leader, FrameworkID: got.FrameworkID}
		}
		return err
	})
	return info, err
}

// Leader asks who leads, as host:port. That nobody does is an error.
func (c *Client) Leader(ctx context.Context) (string, error) {
	var leader string
	err := c.call(ctx, "asking Marathon for its leader", func(m marathon.Marathon) (err error) {
		leader, err = m.Leader()
		return err
	})
	return leader, err
}

// Deployments are those going on.
func (c *Client) Deployments(ctx context.Context) ([]Deployment, error) {
	var all []Deployment
	err := c.call(ctx, "asking Marathon for its deployments", func(m marathon.Marathon) error {
		got, err := m.Deployments()
		for _, d := range got {
			slices.Sort(d.AffectedApps)
			all = append(all, Deployment{
				ID: d.ID, Version: d.Version, Step: d.CurrentStep, Steps: max(d.TotalSteps, len(d.Steps)), Apps: d.AffectedApps,
			})
		}
		return err
	})
	return all, err
}

// Scale sets the number of an app's instances and returns the id of the
// deployment. With force it overrides a deployment in progress.
func (c *Client) Scale(ctx context.Context, app string, instances int, force bool) (string, error) {
	if !readable(app) {
		return "", fmt.Errorf("scaling: %q is not the id of an app; it is like /shop/web", app)
	}
	if instances < 0 {
		return "", fmt.Errorf("scaling %s: the number of instances must not be negative", app)
	}
	var id string
	err := c.call(ctx, "scaling "+app, func(m marathon.Marathon) error {
		deployment, err := m.ScaleApplicationInstances(app, instances, force)
		if err == nil {
			id = deployment.DeploymentID
		}
		return err
	})
	return id, err
}

// KillTask ends a task. Marathon starts another in its place, unless the app is
// scaled down by it.
func (c *Client) KillTask(ctx context.Context, task string, scaleDown bool) error {
	return c.call(ctx, "killing task "+task, func(m marathon.Marathon) error {
		return m.KillTasks([]string{task}, &marathon.KillTaskOpts{Scale: scaleDown})
	})
}

// call runs one command. go-marathon's own fail-over marks members down and
// pings them in the background for ever; it is given a single address, and the
// api behind it does the fail-over.
func (c *Client) call(ctx context.Context, doing string, command func(marathon.Marathon) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	route := &clientRoute{ctx: ctx, api: c.api}
	m, err := marathon.NewClient(marathon.Config{URL: "http://marathon", HTTPClient: &http.Client{Transport: route}})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	err = command(m)
	if route.err != nil {
		err = route.err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// clientRoute carries go-marathon's requests to the members.
type clientRoute struct {
	ctx context.Context
	api *api
	err error
}

func (r *clientRoute) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		defer req.Body.Close()
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	c := call{method: req.Method, path: req.URL.Path, query: req.URL.Query(), body: body}
	got, err := r.try(c)
	if err != nil {
		// A status that go-marathon neither retries nor takes for a member that
		// is down.
		r.err = err
		return &http.Response{StatusCode: http.StatusTeapot, Body: http.NoBody, Request: req}, nil
	}
	return &http.Response{
		StatusCode: got.status, Header: got.header, Body: io.NopCloser(bytes.NewReader(got.body)), Request: req,
	}, nil
}

// try asks the members in order. Only one that could not be reached, or that
// cannot serve, is passed over: an answer that says no is the answer.
func (r *clientRoute) try(c call) (*answer, error) {
	var failures []error
	for _, i := range r.api.order(0) {
		got, err := r.api.do(r.ctx, r.api.members[i], c)
		if err == nil {
			r.api.prefer(i)
			return got, nil
		}
		var refused *statusError
		if errors.As(err, &refused) && refused.status < 500 {
			return nil, err
		}
		failures = append(failures, err)
		if r.ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}
