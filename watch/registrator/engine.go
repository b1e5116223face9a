package registrator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

// Engine is the Docker Engine that runs the containers. It holds no connection.
type Engine struct{ options []client.Opt }

// legacySocket is where gliderlabs/registrator's image had Docker's socket mounted.
const legacySocket = "/tmp/docker.sock"

// NewEngine is the engine of Docker's own environment (DOCKER_HOST,
// DOCKER_CERT_PATH, DOCKER_TLS_VERIFY, DOCKER_API_VERSION), else the local one.
func NewEngine() (*Engine, error) {
	options := []client.Opt{client.FromEnv}
	if os.Getenv(client.EnvOverrideHost) == "" {
		if _, err := os.Stat("/var/run/docker.sock"); errors.Is(err, os.ErrNotExist) {
			if _, err := os.Stat(legacySocket); err == nil {
				options = append(options, client.WithHost("unix://"+legacySocket))
			}
		}
	}
	return newEngine(options...)
}

// NewEngineAt is the engine at that host, written as DOCKER_HOST would be.
func NewEngineAt(host string) (*Engine, error) { return newEngine(client.WithHost(host)) }

func newEngine(options ...client.Opt) (*Engine, error) {
	cli, err := client.New(options...)
	if err != nil {
		return nil, fmt.Errorf("make a client of Docker: %w", err)
	}
	return &Engine{options}, cli.Close()
}

// engineTimeout bounds one request to the engine, the event stream excepted.
const engineTimeout = 30 * time.Second

// session is a connection to the engine, from one subscription to the loss of it.
// The API's version is negotiated anew in each: the engine may have been upgraded.
type session struct {
	client *client.Client
	events client.EventsResult
}

// connect subscribes to the engine's events. Everything that happens after it has
// returned is among them.
func (e *Engine) connect(ctx context.Context) (*session, error) {
	cli, err := client.New(e.options...)
	if err != nil {
		return nil, fmt.Errorf("connect to Docker: %w", err)
	}
	// Exec events are left out: every run of a HEALTHCHECK makes three.
	filters := client.Filters{}.Add("type", string(events.ContainerEventType), string(events.NetworkEventType)).
		Add("event", string(events.ActionStart), string(events.ActionDie), string(events.ActionKill), string(events.ActionPause),
			string(events.ActionUnPause), string(events.ActionRename), string(events.ActionHealthStatus), string(events.ActionDestroy),
			string(events.ActionConnect), string(events.ActionDisconnect))
	s := &session{client: cli, events: cli.Events(ctx, client.EventsListOptions{Filters: filters})}
	select {
	case err := <-s.events.Err:
		cli.Close()
		return nil, fmt.Errorf("connect to Docker: %w", err)
	default:
		return s, nil
	}
}

func (s *session) close() { s.client.Close() }

// list gives the ids of the containers that run, or of all.
func (s *session) list(ctx context.Context, all bool) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	found, err := s.client.ContainerList(ctx, client.ContainerListOptions{All: all})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	ids := make([]string, 0, len(found.Items))
	for _, c := range found.Items {
		ids = append(ids, c.ID)
	}
	return ids, nil
}

// inspect describes one container, nil if there is no such.
func (s *session) inspect(ctx context.Context, id string) (*Container, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	found, err := s.client.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect container %s: %w", shortID(id), err)
	}
	return ParseContainer(found.Raw)
}
