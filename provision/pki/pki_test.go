package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	now  = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	node = ForNode("host-01", "dc1", true, netip.MustParseAddr("10.0.0.1"))
)

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority("mi-lb", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCertificatesProveWhatConsulAsksFor(t *testing.T) {
	a := authority(t)
	pair, err := a.Issue(node, now)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ParseCertificate(pair.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(a.Certificate()))
	for _, name := range []string{"server.dc1.consul", "host-01", "localhost", "10.0.0.1", "127.0.0.1", "::1"} {
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if _, err := certificate.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if certificate.VerifyHostname("server.dc2.consul") == nil {
		t.Error("it proves to be a server of another datacenter")
	}
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now.Add(-5 * time.Minute)}); err != nil {
		t.Errorf("a clock that is five minutes behind: %v", err)
	}
	if strings.Contains(fmt.Sprintf("%+v %v %#v", pair, a, pair), "PRIVATE") {
		t.Error("printing shows the key")
	}
}

func TestTLSWorksBothWays(t *testing.T) {
	a, err := NewAuthority("mi-lb", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Issue(node, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair([]byte(pair.Certificate), []byte(pair.Key.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(a.Certificate()))
	one, two := net.Pipe()
	server := tls.Server(one, &tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert})
	client := tls.Client(two, &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots, ServerName: "server.dc1.consul"})
	failed := make(chan error, 1)
	go func() { failed <- server.HandshakeContext(t.Context()) }()
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

func TestCertificatesAreReplacedWhenTheyMustBe(t *testing.T) {
	a, other := authority(t), authority(t)
	pair, err := a.Issue(node, now)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Issue(node, now)
	if err != nil {
		t.Fatal(err)
	}
	moved := ForNode("host-01", "dc1", true, netip.MustParseAddr("10.0.0.2"))
	for _, test := range []struct {
		name    string
		pair    Pair
		subject Subject
		at      time.Time
		want    string
	}{
		{"a good one", pair, node, now.Add(time.Hour), ""},
		{"none", Pair{}, node, now, "there is none"},
		{"one that ends soon", pair, node, now.Add(NodeLifetime - 80*24*time.Hour), "it ends on"},
		{"one of a host that moved", pair, moved, now, "names or addresses"},
		{"one of another authority", foreign, node, now, "another authority"},
		{"one with another's key", Pair{pair.Certificate, foreign.Key}, node, now, "its key belongs"},
		{"rubbish", Pair{"x", pair.Key}, node, now, "it cannot be read"},
	} {
		if why := a.Why(test.pair, test.subject, test.at); !strings.HasPrefix(why, test.want) || (why == "") != (test.want == "") {
			t.Errorf("%s: %q; want %q", test.name, why, test.want)
		}
	}
}

func TestAnAuthorityNeedsItsOwnKey(t *testing.T) {
	a, other := authority(t), authority(t)
	if _, err := LoadAuthority(a.Certificate(), other.Key()); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("another's key: %v", err)
	}
	if _, err := LoadAuthority(a.Certificate(), a.Key()); err != nil {
		t.Error(err)
	}
}
