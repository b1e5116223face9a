package registrator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Container is what Docker's inspect says, as far as it is used here or may be
// used by a -tags template. The field names are those that gliderlabs/registrator
// offered to templates. It is decoded from the engine's own JSON, so that it
// means the same under every API version.
type Container struct {
	ID              string `json:"Id"`
	Created         string
	Path            string
	Args            []string
	Name            string // with a leading slash
	Image           string // the image's id; Config.Image is its name
	RestartCount    int
	Driver          string
	State           State
	Config          Config
	HostConfig      HostConfig
	NetworkSettings NetworkSettings
}

// State is how a container runs. Times are RFC 3339 with nanoseconds, as
// Docker prints them.
type State struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	Dead       bool
	ExitCode   int
	StartedAt  string
	FinishedAt string
	Health     *Health
}

// Health is the verdict of the container's HEALTHCHECK, nil where it has none.
type Health struct {
	Status        string // starting, healthy, unhealthy or none
	FailingStreak int
	Log           []HealthProbe
}

// HealthProbe is one run of the HEALTHCHECK.
type HealthProbe struct {
	ExitCode int
	Output   string
}

// Config is what the container was created with. Env may hold secrets.
type Config struct {
	Hostname     string
	Domainname   string
	User         string
	Env          []string
	Cmd          []string
	Entrypoint   []string
	Image        string
	WorkingDir   string
	Labels       map[string]string
	ExposedPorts map[string]struct{} // "80/tcp"
	StopSignal   string
}

// HostConfig is the part of the container's configuration that is about the host.
type HostConfig struct {
	NetworkMode   string // default, bridge, host, none, container:<id> or a network's name
	Binds         []string
	PortBindings  map[string][]PortBinding
	Privileged    bool
	RestartPolicy struct{ Name string }
	Memory        int64
	CpuShares     int64 // Docker's spelling, which templates use
}

// NetworkSettings is where a running container can be reached.
type NetworkSettings struct {
	// IPAddress is that on the default bridge; engines since API 1.52 leave it out.
	IPAddress string
	Gateway   string
	Ports     map[string][]PortBinding // "80/tcp"; nil where exposed but not published
	Networks  map[string]Network
}

// PortBinding is where a container's port is published on the host.
type PortBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// Network is a container's endpoint in one network.
type Network struct {
	IPAddress         string
	Gateway           string
	GlobalIPv6Address string
	MacAddress        string
	Aliases           []string
}

// ParseContainer decodes the body of the engine's GET /containers/<id>/json.
func ParseContainer(body []byte) (*Container, error) {
	var c Container
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, fmt.Errorf("decode container: %w", err)
	}
	if c.ID == "" {
		return nil, fmt.Errorf("decode container: it has no id")
	}
	return &c, nil
}

// shortIDLength is how much of a container's id Docker prints.
const shortIDLength = 12

// ShortID is the container's id as Docker prints it.
func (c *Container) ShortID() string { return shortID(c.ID) }

func shortID(id string) string { return id[:min(len(id), shortIDLength)] }

// PlainName is the container's name without the slash.
func (c *Container) PlainName() string { return strings.TrimPrefix(c.Name, "/") }

// Serving says whether the container's processes run at all. A container that
// Docker is about to restart does not; a paused one does.
func (c *Container) Serving() bool { return c.State.Running && !c.State.Restarting && !c.State.Dead }

// signaled is the bit of an exit code that says a signal ended the process.
const signaled = 128

// Failed says whether the container ended by itself with an error, which is when
// "-deregister on-success" leaves its services registered.
func (c *Container) Failed() bool {
	return !c.State.Running && c.State.ExitCode != 0 && c.State.ExitCode&signaled == 0
}

// env is the value of the first variable of that name.
func (c *Container) env(name string) (string, bool) {
	for _, kv := range c.Config.Env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// hostNetwork says whether the container shares the host's network.
func (c *Container) hostNetwork() bool { return c.HostConfig.NetworkMode == "host" }

// networkOf is the id or name of the container whose network this one shares.
func (c *Container) networkOf() (string, bool) {
	return strings.CutPrefix(c.HostConfig.NetworkMode, "container:")
}

// address is the container's own: in the network it was created in if it has one
// there, else in the first of its networks by name. Empty where it has none.
func (c *Container) address() string {
	if c.NetworkSettings.IPAddress != "" {
		return c.NetworkSettings.IPAddress
	}
	mode := c.HostConfig.NetworkMode
	if mode == "default" {
		mode = "bridge"
	}
	names := make([]string, 0, len(c.NetworkSettings.Networks))
	for name := range c.NetworkSettings.Networks {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if (a == mode) != (b == mode) {
			if a == mode {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		if n := c.NetworkSettings.Networks[name]; n.IPAddress != "" {
			return n.IPAddress
		}
	}
	for _, name := range names {
		if n := c.NetworkSettings.Networks[name]; n.GlobalIPv6Address != "" {
			return n.GlobalIPv6Address
		}
	}
	return ""
}
