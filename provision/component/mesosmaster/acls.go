package mesosmaster

import (
	"encoding/json"

	"github.com/mi-lb/mi-lb/provision/secrets"
)

// aclDocument is what Mesos reads its ACLs from: those given, else ones that say who
// registers what and leave everything else to whoever is authenticated.
func aclDocument(given map[string]any) (string, error) {
	if given == nil {
		given = map[string]any{
			"permissive": true,
			"register_frameworks": []any{
				map[string]any{"principals": values(secrets.MesosMarathon), "roles": map[string]any{"type": "ANY"}},
				map[string]any{"principals": anybody(), "roles": map[string]any{"type": "NONE"}},
			},
			"register_agents": []any{
				map[string]any{"principals": values(secrets.MesosAgent), "agents": map[string]any{"type": "ANY"}},
				map[string]any{"principals": anybody(), "agents": map[string]any{"type": "NONE"}},
			},
		}
	}
	data, err := json.MarshalIndent(given, "", "  ")
	if err != nil {
		return "", err
	}
	return string(data) + "\n", nil
}

func values(principals ...string) map[string]any { return map[string]any{"values": principals} }

func anybody() map[string]any { return map[string]any{"type": "ANY"} }
