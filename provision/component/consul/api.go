package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/internal/api"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// agentAPI is the API of one node's agent, asked on the node with the management
// token.
type agentAPI struct {
	node  string
	host  component.Host
	base  string
	token redact.Text
}

func apiOf(p component.Platform, n *cluster.Node, a component.Access) (agentAPI, error) {
	host, err := a.Host(n.Name)
	if err != nil {
		return agentAPI{}, err
	}
	return agentAPI{n.Name, host, "http://" + HTTPAddress(n), p.Secrets.ConsulToken(secrets.ManagementPurpose).Secret}, nil
}

// apiError is an answer that says no.
type apiError struct {
	path   string
	status int
	body   string
}

// Error implements error.
func (e *apiError) Error() string {
	return fmt.Sprintf("Consul answers %d to %s: %s", e.status, e.path, e.body)
}

// says whether an error is an answer with that text in it.
func says(err error, text string) bool {
	var e *apiError
	return errors.As(err, &e) && strings.Contains(e.body, text)
}

func isStatus(err error, status int) bool {
	var e *apiError
	return errors.As(err, &e) && e.status == status
}

// call asks; into is what the answer is decoded into, nil if it does not matter.
func (c agentAPI) call(ctx context.Context, method, path string, body, into any) error {
	data, status, err := api.Do(ctx, c.host, api.Request{Method: method, URL: c.base + path, Token: c.token.Reveal(), Body: body})
	if err != nil {
		return fmt.Errorf("ask Consul on %s: %w", c.node, err)
	}
	if status != http.StatusOK {
		// Consul's errors name accessors and what was asked, and never a secret.
		said := strings.Join(strings.Fields(string(data)), " ")
		if len(said) > 300 {
			said = strings.ToValidUTF8(said[:300], "") + "…"
		}
		bare, _, _ := strings.Cut(path, "?")
		return &apiError{bare, status, said}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read Consul's answer to %s on %s: %w", path, c.node, err)
	}
	return nil
}

func (c agentAPI) get(ctx context.Context, path string, into any) error {
	return c.call(ctx, http.MethodGet, path, nil, into)
}

// leader is the address of the datacenter's leader; "" if it has none.
func (c agentAPI) leader(ctx context.Context) (string, error) {
	var leader string
	err := c.get(ctx, "/v1/status/leader", &leader)
	return leader, err
}

type member struct {
	Name   string
	Status int
	Tags   map[string]string
}

// alive is the status of a member that answers.
const alive = 1

func (c agentAPI) members(ctx context.Context, wan bool) (map[string]member, error) {
	path := "/v1/agent/members"
	if wan {
		path += "?wan=1"
	}
	var list []member
	if err := c.get(ctx, path, &list); err != nil {
		return nil, err
	}
	all := make(map[string]member, len(list))
	for _, m := range list {
		all[m.Name] = m
	}
	return all, nil
}

type raftServer struct {
	Node    string
	Address string
	Leader  bool
	Voter   bool
}

func (c agentAPI) raft(ctx context.Context) ([]raftServer, error) {
	var r struct{ Servers []raftServer }
	err := c.get(ctx, "/v1/operator/raft/configuration", &r)
	return r.Servers, err
}

type autopilot struct {
	Healthy          bool
	FailureTolerance int
	Servers          []struct {
		Name    string
		Healthy bool
	}
}

// health is the answer of the leader's autopilot, which is 429 if it is not healthy.
func (c agentAPI) health(ctx context.Context) (autopilot, error) {
	var h autopilot
	data, status, err := api.Do(ctx, c.host, api.Request{URL: c.base + "/v1/operator/autopilot/health", Token: c.token.Reveal()})
	if err != nil {
		return h, fmt.Errorf("ask Consul on %s: %w", c.node, err)
	}
	if status != http.StatusOK && status != http.StatusTooManyRequests {
		return h, &apiError{"/v1/operator/autopilot/health", status, strings.Join(strings.Fields(string(data)), " ")}
	}
	if err := json.Unmarshal(data, &h); err != nil {
		return h, fmt.Errorf("read Consul's answer on %s: %w", c.node, err)
	}
	return h, nil
}

// replication is how a datacenter gets the tokens of the primary one.
type replication struct {
	Enabled, Running     bool
	ReplicationType      string
	LastSuccess          string
	LastError            string
	LastErrorMessage     string
	ReplicatedTokenIndex uint64
}

func (c agentAPI) replication(ctx context.Context) (replication, error) {
	var r replication
	err := c.get(ctx, "/v1/acl/replication", &r)
	return r, err
}

// runs says why nothing is replicated.
func (r replication) runs() error {
	switch {
	case !r.Enabled || !r.Running:
		return errors.New("ACLs are not replicated from the primary datacenter: that is not running")
	case r.ReplicationType != "tokens":
		return fmt.Errorf("only %s are replicated from the primary datacenter, and not tokens", r.ReplicationType)
	}
	return nil
}

// works says why replication does not run, or what went wrong when it last did; times
// are of one clock and one form.
func (r replication) works() error {
	if err := r.runs(); err != nil {
		return err
	}
	switch {
	case r.LastSuccess == "" || strings.HasPrefix(r.LastSuccess, "0001-"):
		return fmt.Errorf("ACLs have not been replicated from the primary datacenter yet: %s", r.LastErrorMessage)
	case r.LastError > r.LastSuccess:
		return fmt.Errorf("ACLs are no longer replicated from the primary datacenter: %s", r.LastErrorMessage)
	}
	return nil
}

type link struct{ Name string }

type nodeIdentity struct{ NodeName, Datacenter string }

// token is an ACL token, as it is written and read.
type token struct {
	AccessorID     string
	SecretID       string `json:",omitempty"`
	Description    string
	Policies       []link         `json:",omitempty"`
	NodeIdentities []nodeIdentity `json:",omitempty"`
}

// policy is an ACL policy, as it is written and read.
type policy struct {
	ID          string `json:",omitempty"`
	Name        string
	Description string
	Rules       string
}

// policyNamed is a policy; nil if there is none of that name.
func (c agentAPI) policyNamed(ctx context.Context, name string) (*policy, error) {
	var found policy
	err := c.get(ctx, "/v1/acl/policy/name/"+url.PathEscape(name), &found)
	if isStatus(err, http.StatusNotFound) || says(err, "ACL not found") {
		return nil, nil
	}
	return &found, err
}

// tokens are all tokens, by accessor.
func (c agentAPI) tokens(ctx context.Context) (map[string]token, error) {
	var list []token
	if err := c.get(ctx, "/v1/acl/tokens", &list); err != nil {
		return nil, err
	}
	all := make(map[string]token, len(list))
	for _, t := range list {
		all[t.AccessorID] = t
	}
	return all, nil
}

// hasToken says whether a token is there.
func (c agentAPI) hasToken(ctx context.Context, accessor string) (bool, error) {
	err := c.get(ctx, "/v1/acl/token/"+url.PathEscape(accessor), nil)
	if isStatus(err, http.StatusNotFound) || says(err, "ACL not found") || says(err, "Cannot find token") {
		return false, nil
	}
	return err == nil, err
}
