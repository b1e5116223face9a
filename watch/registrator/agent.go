package registrator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// Agent is the local Consul agent.
type Agent struct {
	client *api.Client
	uri    string
}

// NewAgent reads a registry URI as gliderlabs/registrator has them: consul://host:port,
// consul-tls://host:port or consul-unix://path. What it leaves out comes from
// Consul's own environment (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN,
// CONSUL_HTTP_TOKEN_FILE, …). For consul-tls the files are those of CONSUL_CACERT,
// CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY, or CONSUL_TLSCERT and CONSUL_TLSKEY
// as version 7's documentation had them.
func NewAgent(uri string) (*Agent, error) {
	u, err := url.Parse(uri)
	if err != nil {
		if parse := new(url.Error); errors.As(err, &parse) {
			err = parse.Err // without the URI, which may hold a password
		}
		return nil, fmt.Errorf("registry URI: %w; write consul://host:port, consul-tls://host:port or consul-unix:///path", err)
	}
	if u.User != nil {
		return nil, errors.New("registry URI: it holds a user or password; give a token with CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE")
	}
	config := api.DefaultConfig()
	switch u.Scheme {
	case "consul":
		if u.Host != "" {
			config.Address = u.Host
		}
	case "consul-unix":
		if u.Host+u.Path == "" {
			return nil, fmt.Errorf("registry URI %s: it names no socket; write consul-unix:///path", uri)
		}
		config.Address = "unix://" + u.Host + u.Path
	case "consul-tls":
		if u.Host != "" {
			config.Address = u.Host
		}
		config.Scheme = "https"
		config.TLSConfig.CAFile = firstEnv("CONSUL_CACERT")
		config.TLSConfig.CertFile = firstEnv("CONSUL_CLIENT_CERT", "CONSUL_TLSCERT")
		config.TLSConfig.KeyFile = firstEnv("CONSUL_CLIENT_KEY", "CONSUL_TLSKEY")
	case "etcd", "skydns2", "consulkv", "consulkv-unix", "zookeeper", "eureka":
		return nil, fmt.Errorf("registry URI %s: %s is not supported; mi-lb registers with Consul: consul://127.0.0.1:8500", uri, u.Scheme)
	default:
		return nil, fmt.Errorf("registry URI %s: write consul://host:port, consul-tls://host:port or consul-unix:///path", uri)
	}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("registry URI %s: %w", uri, err)
	}
	return &Agent{client: client, uri: uri}, nil
}

func firstEnv(names ...string) string {
	for _, name := range names {
		if value := os.Getenv(name); value != "" {
			return value
		}
	}
	return ""
}

// String is the agent's URI.
func (a *Agent) String() string { return a.uri }

// agentTimeout bounds one request to the agent.
const agentTimeout = 10 * time.Second

const maintenancePrefix = "_service_maintenance:"

// Read is what the agent has now.
func (a *Agent) Read(ctx context.Context) (*Actual, error) {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	query := (&api.QueryOptions{}).WithContext(ctx)
	var services map[string]*api.AgentService
	answer, err := a.client.Raw().Query("/v1/agent/services", &services, query)
	if err != nil {
		return nil, fmt.Errorf("read services of the Consul agent: %w", err)
	}
	checks, err := a.client.Agent().ChecksWithFilterOpts("", query)
	if err != nil {
		return nil, fmt.Errorf("read checks of the Consul agent: %w", err)
	}
	actual := &Actual{Services: make(map[string]ActualService, len(services)), Filtered: answer.ResultsFilteredByACLs}
	for id, s := range services {
		actual.Services[id] = ActualService{
			Name: s.Service, Address: s.Address, Port: s.Port, Tags: s.Tags, Meta: s.Meta, Checks: map[string]CheckState{},
		}
	}
	for id, check := range checks {
		s, ok := actual.Services[check.ServiceID]
		if !ok {
			continue
		}
		if strings.HasPrefix(id, maintenancePrefix) {
			s.Maintenance = &check.Notes
			actual.Services[check.ServiceID] = s
			continue
		}
		s.Checks[id] = CheckState{Status: check.Status, Output: check.Output}
	}
	return actual, nil
}

// watchWait is how long the agent keeps one long-poll open; it adds up to a
// sixteenth of its own.
const watchWait = 5 * time.Minute

// Watch returns when the service is no longer what it was (nil), or when the
// agent no longer answers. It costs one connection, and nothing while it waits:
// that is how a restart of the agent is noticed at once.
func (a *Agent) Watch(ctx context.Context, id string) error {
	hash := ""
	for {
		bounded, cancel := context.WithTimeout(ctx, watchWait+watchWait/8)
		query := (&api.QueryOptions{WaitHash: hash, WaitTime: watchWait}).WithContext(bounded)
		_, answer, err := a.client.Agent().Service(id, query)
		cancel()
		switch {
		case notFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("watch service %s of the Consul agent: %w", id, err)
		case answer.LastContentHash == "": // older than Consul 1.3: it cannot be watched
			<-ctx.Done()
			return ctx.Err()
		case hash != "" && hash != answer.LastContentHash:
			return nil
		}
		hash = answer.LastContentHash
	}
}

// Apply performs one operation. What is to be ended and is already gone is no error.
func (a *Agent) Apply(ctx context.Context, op Operation) error {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	query := (&api.QueryOptions{}).WithContext(ctx)
	agent := a.client.Agent()
	var err error
	switch op.Kind {
	case Register:
		options := api.ServiceRegisterOpts{ReplaceExistingChecks: op.Replace}.WithContext(ctx)
		registration := op.Service.Registration
		err = agent.ServiceRegisterOpts(&registration, options)
	case Deregister:
		if err = agent.ServiceDeregisterOpts(op.ID, query); notFound(err) {
			err = nil
		}
	case SetHealth:
		err = agent.UpdateTTLOpts(dockerCheckID(op.ID), op.Health.Output, op.Health.Status, query)
	case EnterMaintenance:
		err = agent.EnableServiceMaintenanceOpts(op.ID, op.Reason, query)
	case LeaveMaintenance:
		if err = agent.DisableServiceMaintenanceOpts(op.ID, query); notFound(err) {
			err = nil
		}
	default:
		err = errors.New("no such operation")
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", op.Kind, op.ID, err)
	}
	return nil
}

func notFound(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}

// answered says whether an error is the agent's answer, as opposed to none:
// trying something else makes sense only then.
func answered(err error) bool {
	var status api.StatusError
	return errors.As(err, &status)
}

// hint says what the operator can do about an answer, empty where that is not known.
func hint(err error) string {
	var status api.StatusError
	if !errors.As(err, &status) {
		return ""
	}
	switch {
	case status.Code == http.StatusForbidden:
		return `give the token of CONSUL_HTTP_TOKEN a policy with: service_prefix "" { policy = "write" }`
	case strings.Contains(status.Body, "Scripts are disabled"):
		return "the agent needs enable_script_checks for checks that run commands"
	}
	return ""
}
