// Package deploy holds the files that get installed beside the program, as
// bootstrap puts them on machines and packages ship them.
package deploy

import _ "embed"

// EdgeUnit is mi-lb.service: the edge with a HAProxy of its own.
//
//go:embed systemd/mi-lb.service
var EdgeUnit string

// RegistratorUnit is the unit of "mi-lb registrator".
//
//go:embed registrator/mi-lb-registrator.service
var RegistratorUnit string
