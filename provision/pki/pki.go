package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mi-lb/mi-lb/provision/redact"
)

const (
	// AuthorityLifetime is how long a certificate of the authority is valid.
	AuthorityLifetime = 10 * 365 * 24 * time.Hour
	// NodeLifetime is how long a certificate of a node is valid.
	NodeLifetime = 2 * 365 * 24 * time.Hour
	// RenewBefore is how long before its end a node's certificate is due for renewal.
	RenewBefore = 90 * 24 * time.Hour
	// backdate allows for clocks that are behind.
	backdate = 10 * time.Minute
)

// Authority issues certificates.
type Authority struct {
	certificate *x509.Certificate
	pem         string
	key         crypto.Signer
	keyPEM      redact.Text
}

// NewAuthority makes an authority with a new key.
func NewAuthority(name string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the authority's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encode the authority's key: %w", err)
	}
	id := sha256.Sum256(public)
	template := &x509.Certificate{
		SerialNumber: serial,
		// The serial makes the names of two authorities differ, while one takes
		// over from the other.
		Subject:               pkix.Name{CommonName: name, SerialNumber: serial.Text(16)[:8]},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(AuthorityLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id[:20],
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign the authority's certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return LoadAuthority(encodeCertificate(der), keyPEM)
}

// LoadAuthority is the authority with this certificate and key.
func LoadAuthority(certificate string, key redact.Text) (*Authority, error) {
	parsed, err := ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	if !parsed.IsCA {
		return nil, errors.New("read the authority's certificate: it is none of an authority")
	}
	signer, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key: %w", err)
	}
	if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(parsed.PublicKey) {
		return nil, errors.New("the authority's key does not belong to its certificate")
	}
	return &Authority{certificate: parsed, pem: certificate, key: signer, keyPEM: key}, nil
}

// Certificate is the authority's certificate as PEM.
func (a *Authority) Certificate() string { return a.pem }

// Key is the authority's private key as PEM.
func (a *Authority) Key() redact.Text { return a.keyPEM }

// String says nothing of the key.
func (a *Authority) String() string { return "authority " + a.certificate.Subject.String() }

// Subject says who a certificate is for.
type Subject struct {
	// Name is the certificate's common name.
	Name string
	// DNS and IPs are what it proves to be.
	DNS []string
	IPs []netip.Addr
}

// ForNode is the subject of a node's certificate: what Consul asks for
// ("server.dc1.consul" or "client.dc1.consul"), the node's name, and its addresses.
func ForNode(name, datacenter string, server bool, addresses ...netip.Addr) Subject {
	kind := "client"
	if server {
		kind = "server"
	}
	s := Subject{Name: name, DNS: []string{
		kind + "." + datacenter + ".consul", name, name + ".node." + datacenter + ".consul", name + ".node.consul", "localhost",
	}}
	s.IPs = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for _, a := range addresses {
		if a.IsValid() && !slices.Contains(s.IPs, a) {
			s.IPs = append(s.IPs, a)
		}
	}
	return s
}

// Pair is a certificate and its key, as PEM.
type Pair struct {
	Certificate string
	Key         redact.Text
}

// Issue makes a certificate and key, for servers and clients of TLS.
func (a *Authority) Issue(s Subject, now time.Time) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make the key of %s: %w", s.Name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return Pair{}, err
	}
	end := now.Add(NodeLifetime)
	if end.After(a.certificate.NotAfter) {
		end = a.certificate.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:   serial,
		Subject:        pkix.Name{CommonName: s.Name},
		NotBefore:      now.Add(-backdate),
		NotAfter:       end,
		KeyUsage:       x509.KeyUsageDigitalSignature,
		ExtKeyUsage:    []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:       s.DNS,
		IPAddresses:    netIPs(s.IPs),
		AuthorityKeyId: a.certificate.SubjectKeyId,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate of %s: %w", s.Name, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{encodeCertificate(der), keyPEM}, nil
}

// Why says why a pair has to be replaced: it is missing or broken, ends soon, is
// for somebody else, or another authority signed it. "" if it is good.
func (a *Authority) Why(p Pair, s Subject, now time.Time) string {
	if p.Certificate == "" || p.Key.IsEmpty() {
		return "there is none"
	}
	certificate, err := ParseCertificate(p.Certificate)
	if err != nil {
		return "it cannot be read"
	}
	key, err := parseKey(p.Key)
	if err != nil {
		return "its key cannot be read"
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(certificate.PublicKey) {
		return "its key belongs to another one"
	}
	if certificate.CheckSignatureFrom(a.certificate) != nil {
		return "another authority signed it"
	}
	if now.Add(RenewBefore).After(certificate.NotAfter) && certificate.NotAfter.Before(a.certificate.NotAfter) {
		return "it ends on " + certificate.NotAfter.UTC().Format(time.DateOnly)
	}
	same := certificate.Subject.CommonName == s.Name && slices.Equal(slices.Sorted(slices.Values(certificate.DNSNames)), slices.Sorted(slices.Values(s.DNS)))
	have := slices.Clone(certificate.IPAddresses)
	if same && len(have) == len(s.IPs) {
		for _, ip := range netIPs(s.IPs) {
			same = same && slices.ContainsFunc(have, ip.Equal)
		}
	} else {
		same = false
	}
	if !same {
		return "names or addresses have changed"
	}
	return ""
}

// ParseCertificate reads one certificate from PEM.
func ParseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it is no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func netIPs(all []netip.Addr) []net.IP {
	ips := make([]net.IP, len(all))
	for i, a := range all {
		ips[i] = a.Unmap().AsSlice()
	}
	return ips
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return serial.Add(serial, new(big.Int).Lsh(big.NewInt(1), 126)), nil
}

func encodeCertificate(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func encodeKey(key *ecdsa.PrivateKey) (redact.Text, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return redact.Text{}, fmt.Errorf("encode a key: %w", err)
	}
	return redact.New(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))), nil
}

func parseKey(text redact.Text) (crypto.Signer, error) {
	block, _ := pem.Decode([]byte(text.Reveal()))
	if block == nil {
		return nil, errors.New("it is no PEM key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it is no PKCS #8 key")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("it cannot sign")
	}
	return signer, nil
}
