// Package pki is the platform's own certificate authority.
//
// In come the authority's certificates and key, and who a certificate is for. Out
// go certificates and keys as PEM. The package stores nothing: the key of the
// authority lives in the secrets bundle on the operator's machine and never
// leaves it; nodes get their own certificate, their own key and the authority's
// certificates.
package pki
