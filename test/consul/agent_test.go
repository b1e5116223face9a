package consul_test

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/mi-lb/mi-lb/test/consul"
)

func start(t *testing.T, ctx context.Context, o consul.Options) *consul.Agent {
	t.Helper()
	a, err := consul.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	return a
}

func TestDatacentersJoinAndAnAgentComesBackWithOrWithoutItsData(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dc1 := start(t, ctx, consul.Options{})
	dc2 := start(t, ctx, consul.Options{Datacenter: "dc2", JoinWAN: []string{dc1.SerfWAN()}})
	if err := dc1.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	if err := dc1.WaitDatacenters(ctx, "dc1", "dc2"); err != nil {
		t.Fatal(err)
	}
	if err := dc2.WaitDatacenters(ctx, "dc1", "dc2"); err != nil {
		t.Fatal(err)
	}
	if err := dc1.RegisterService(ctx, &api.AgentServiceRegistration{Name: "web", Port: 80}); err != nil {
		t.Fatal(err)
	}
	for _, empty := range []bool{false, true} {
		if err := dc1.Restart(ctx, empty); err != nil {
			t.Fatal(err)
		}
		if err := dc1.WaitLeader(ctx); err != nil {
			t.Fatal(err)
		}
		services, err := dc1.Client().Agent().Services()
		if err != nil {
			t.Fatal(err)
		}
		if _, has := services["web"]; has == empty {
			t.Errorf("restarted with empty=%v: web registered: %v", empty, has)
		}
	}
}

func TestTheAPIAnswersOverTLSAndOnASocket(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	certificates, err := consul.NewCertificates(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const token = "5b9b2ad4-6f0c-4c8e-9b11-0a5a4bb6a0c1"
	a := start(t, ctx, consul.Options{TLS: certificates, UnixSocket: true, ManagementToken: token})
	if err := a.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"https://" + a.HTTPSAddress(), "unix://" + a.Socket()} {
		client, err := api.NewClient(&api.Config{Address: address, Token: token, TLSConfig: api.TLSConfig{
			CAFile: certificates.CAFile, CertFile: certificates.CertFile, KeyFile: certificates.KeyFile,
		}})
		if err != nil {
			t.Fatal(err)
		}
		if services, _, err := client.Catalog().Services(nil); err != nil || len(services) == 0 {
			t.Errorf("%s: services %v, error %v", address, services, err)
		}
	}
}
