package templates

import (
	"fmt"
	"os"
	"strings"
	"time"

	dep "github.com/hashicorp/consul-template/dependency"
)

// Consul says how templates reach Consul.
type Consul struct {
	// Address is a URL (http, https, unix) or host:port.
	Address string
	// TokenFile is read once; Token is used if it is empty.
	Token     string
	TokenFile string
	// CAFile and CAPath verify the server; empty for the system's.
	CAFile, CAPath string
	// CertFile and KeyFile are the client's.
	CertFile, KeyFile string
	ServerName        string
	SkipVerify        bool
}

// Vault says how templates reach Vault.
type Vault struct {
	Address           string
	Namespace         string
	Token             string
	TokenFile         string
	CAFile, CAPath    string
	CertFile, KeyFile string
	ServerName        string
	SkipVerify        bool
}

// clients are what consul-template's dependencies are fetched with.
type clients struct {
	set           *dep.ClientSet
	consul, vault bool
}

const (
	dialTimeout = 5 * time.Second
	keepAlive   = 30 * time.Second
	idleTimeout = 90 * time.Second
	tlsTimeout  = 10 * time.Second
)

func newClients(consul *Consul, vault *Vault) (clients, error) {
	c := clients{set: dep.NewClientSet()}
	if consul != nil {
		token, err := secret(consul.Token, consul.TokenFile)
		if err != nil {
			return clients{}, fmt.Errorf("read Consul token for templates: %w", err)
		}
		c.consul = true
		if err := c.set.CreateConsulClient(&dep.CreateConsulClientInput{
			Address:    consul.Address,
			Token:      token,
			SSLEnabled: strings.HasPrefix(consul.Address, "https://"),
			SSLVerify:  !consul.SkipVerify,
			SSLCert:    consul.CertFile,
			SSLKey:     consul.KeyFile,
			SSLCACert:  consul.CAFile,
			SSLCAPath:  consul.CAPath,
			ServerName: consul.ServerName,

			TransportDialKeepAlive:       keepAlive,
			TransportDialTimeout:         dialTimeout,
			TransportIdleConnTimeout:     idleTimeout,
			TransportMaxIdleConns:        100,
			TransportMaxIdleConnsPerHost: 100,
			TransportTLSHandshakeTimeout: tlsTimeout,
		}); err != nil {
			return clients{}, fmt.Errorf("connect templates to Consul at %s: %w", consul.Address, err)
		}
	}
	if vault != nil {
		token, err := secret(vault.Token, vault.TokenFile)
		if err != nil {
			return clients{}, fmt.Errorf("read Vault token for templates: %w", err)
		}
		c.vault = true
		if err := c.set.CreateVaultClient(&dep.CreateVaultClientInput{
			Address:    vault.Address,
			Namespace:  vault.Namespace,
			Token:      token,
			SSLEnabled: strings.HasPrefix(vault.Address, "https://"),
			SSLVerify:  !vault.SkipVerify,
			SSLCert:    vault.CertFile,
			SSLKey:     vault.KeyFile,
			SSLCACert:  vault.CAFile,
			SSLCAPath:  vault.CAPath,
			ServerName: vault.ServerName,

			TransportDialKeepAlive:       keepAlive,
			TransportDialTimeout:         dialTimeout,
			TransportIdleConnTimeout:     idleTimeout,
			TransportMaxIdleConns:        10,
			TransportMaxIdleConnsPerHost: 10,
			TransportTLSHandshakeTimeout: tlsTimeout,
		}); err != nil {
			return clients{}, fmt.Errorf("connect templates to Vault at %s: %w", vault.Address, err)
		}
	}
	return c, nil
}

func secret(value, file string) (string, error) {
	if file == "" {
		return value, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

// lack says why the dependency cannot be fetched at all; "" if it can.
func (c clients) lack(d dep.Dependency) string {
	switch t := d.Type(); {
	case t == dep.TypeConsul && !c.consul:
		return "needs Consul, and none is configured"
	case t == dep.TypeVault && !c.vault:
		return "needs Vault, and none is configured for templates"
	case t == dep.TypeNomad:
		return "needs Nomad, which is not supported here"
	}
	return ""
}
