package marathon

import (
	"fmt"
	"strconv"
	"strings"
)

// release is a Marathon version as far as its API differs from others'.
type release struct{ major, minor int }

func parseRelease(version string) (release, error) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return release{}, fmt.Errorf("version %q is not of the form 1.11.24", version)
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil {
		return release{}, fmt.Errorf("version %q is not of the form 1.11.24", version)
	}
	return release{major, minor}, nil
}

func (r release) atLeast(major, minor int) bool {
	return r.major > major || r.major == major && r.minor >= minor
}

// networksField: networks and container.portMappings replace ports, ipAddress
// and docker.network.
func (r release) networksField() bool { return r.atLeast(1, 5) }

// instances: health results and events name instances, no longer only tasks.
func (r release) instances() bool { return r.atLeast(1, 4) }

// flatSteps: a deployment's steps are objects, no longer arrays.
func (r release) flatSteps() bool { return r.atLeast(1, 2) }

// redirectsEvents: a standby redirects /v2/events, it does not proxy it.
func (r release) redirectsEvents() bool { return r.atLeast(1, 7) }

// lightPlans: events carry deployment plans without groups unless asked.
func (r release) lightPlans() bool { return r.atLeast(1, 7) }

// closesSlowStreams: a client that falls behind is cut off; before, it silently
// lost events.
func (r release) closesSlowStreams() bool { return r.atLeast(1, 8) }

// taskSuffix: a task's id is its instance's with "._app.1" behind it.
func (r release) taskSuffix() bool { return r.atLeast(1, 8) }

// roles: apps and tasks have a Mesos role.
func (r release) roles() bool { return r.atLeast(1, 9) }
