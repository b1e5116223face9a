package child

import (
	"os"
	"strings"
)

// Environment is this process's without what would change mi-lb's configuration.
func Environment() []string {
	var plain []string
	for _, variable := range os.Environ() {
		kept := true
		for _, prefix := range []string{"MI_LB_", "CONSUL_", "NOTIFY_SOCKET=", "LISTEN_"} {
			kept = kept && !strings.HasPrefix(variable, prefix)
		}
		if kept {
			plain = append(plain, variable)
		}
	}
	return plain
}
