package process

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// Bindable is nil if a listener can be bound to the address now. A port that HAProxy
// itself listens on cannot. It is for before a reload that opens the port: a master
// that cannot bind pauses its listeners while it tries again.
func Bindable(ctx context.Context, address netip.AddrPort) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address.String())
	if err != nil {
		return fmt.Errorf("port %d cannot be opened: %w", address.Port(), err)
	}
	return l.Close()
}
