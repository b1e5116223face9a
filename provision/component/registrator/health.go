package registrator

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/internal/api"
	"github.com/mi-lb/mi-lb/provision/secrets"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// status is the part of /v1/status that says what should be registered.
type status struct {
	Services int               `json:"services"`
	Refused  map[string]string `json:"refused"`
}

// service is a service as Consul's agent lists it.
type service struct {
	Meta map[string]string `json:"Meta"`
}

// mark is the metadata key that registrator's services have.
const mark = "mi-lb-registrator"

// Healthy says whether the node's agent has all that the node's containers ask
// for, by what registrator says and by what the agent has. Of an image, which has
// no interface to ask, it says whether the container runs.
func (registrator) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	s, problems := read(p, n)
	if s == nil {
		return fmt.Errorf("%s: the settings of registrator cannot be told: %s", n.Name, problems[0].Message)
	}
	if s.Image != "" {
		return imageRuns(ctx, host, n)
	}
	body, code, err := api.Do(ctx, host, api.Request{URL: "http://" + s.listen + "/readyz"})
	if err != nil {
		return fmt.Errorf("%s: ask registrator how it is: %w", n.Name, err)
	}
	if code != http.StatusOK {
		return fmt.Errorf("%s: registrator is not ready: %s", n.Name, strings.TrimSpace(string(body)))
	}
	var now status
	if err := api.JSON(ctx, host, api.Request{URL: "http://" + s.listen + "/v1/status"}, &now); err != nil {
		return fmt.Errorf("%s: ask registrator what it registers: %w", n.Name, err)
	}
	services := map[string]service{}
	token := p.Secrets.ConsulToken(secrets.RegistratorPurpose).Secret.Reveal()
	if err := api.JSON(ctx, host, api.Request{URL: "http://127.0.0.1:8500/v1/agent/services", Token: token}, &services); err != nil {
		return fmt.Errorf("%s: ask Consul's agent for its services: %w", n.Name, err)
	}
	registered := 0
	for _, s := range services {
		if _, ours := s.Meta[mark]; ours {
			registered++
		}
	}
	if wanted := now.Services - len(now.Refused); registered < wanted {
		return fmt.Errorf("%s: Consul's agent has %d of the %d services of containers", n.Name, registered, wanted)
	}
	return nil
}

func imageRuns(ctx context.Context, host component.Host, n *cluster.Node) error {
	result, err := host.Run(ctx, ssh.Command{Line: "docker inspect --format '{{.State.Running}}' registrator", Root: true})
	if err != nil {
		return fmt.Errorf("%s: ask Docker for the container registrator: %w", n.Name, err)
	}
	if strings.TrimSpace(string(result.Stdout)) != "true" {
		return fmt.Errorf("%s: the container registrator does not run; see journalctl -u %s", n.Name, Unit)
	}
	return nil
}
