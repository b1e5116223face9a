package e2e

import (
	"testing"

	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

func TestReloadsFailNoRequestOfKeptConnections(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{Fake: true})
	port := edge.FreePort(t)
	putApp(t, cluster, document(t, "/web", port, nil), edge.StartBackend(t, "web"))
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}})
	byName := edge.StartLoad(t, edge.LoadOptions{Address: e.HTTPAddress, Host: "web.test", Clients: 32})
	byPort := loadPort(t, port)
	for range 10 {
		e.Ask("/_mlb_signal/usr1")
		byName.WaitMore(200)
	}
	byName.Stop()
	byPort.Stop()
}
