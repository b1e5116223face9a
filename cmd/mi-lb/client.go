package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/cmd/mi-lb/config"
)

// adminFlag says which edge a command asks: --admin, else what MI_LB_ADMIN_LISTEN
// says, else the default.
type adminFlag struct{ address string }

func (a *adminFlag) add(command *cobra.Command) {
	address := os.Getenv(config.Key{Path: "admin.listen"}.Env())
	if address == "" {
		address = config.Default().Admin.Listen
	}
	command.Flags().StringVar(&a.address, "admin", address, "admin interface of the edge to ask: host:port or http://host:port")
}

// get asks the edge's admin interface.
func (a *adminFlag) get(ctx context.Context, path string, query url.Values, into any) error {
	base := a.address
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	target := strings.TrimSuffix(base, "/") + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return usageError{fmt.Errorf("--admin %q is no address: %w", a.address, err)}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the edge at %s: %w; is mi-lb serve running there? --admin says where else to ask", a.address, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("ask the edge at %s: %w", a.address, err)
	}
	if response.StatusCode != http.StatusOK {
		var answer struct{ Error string }
		if json.Unmarshal(body, &answer) == nil && answer.Error != "" {
			return fmt.Errorf("the edge at %s says: %s", a.address, answer.Error)
		}
		return fmt.Errorf("ask the edge at %s for %s: %s", a.address, path, response.Status)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read the answer of the edge at %s: %w", a.address, err)
	}
	return nil
}
