// Package file watches services written down by hand, for what no registry
// knows.
//
// In comes a YAML file; out goes one [watch.Part] per datacenter that it names:
//
//	datacenter: dc1            # of services that name none; default: the edge's
//	services:
//	  - name: legacy
//	    tags: [canary]         # as in Consul; every instance has them
//	    meta:                  # as in Consul; instances may override single keys
//	      mi-lb.host: shop.example.com
//	    instances:
//	      - address: 10.0.0.5:8080
//	      - address: db.example.com:8080
//	        weight: 10         # 0 to 65535, default 1
//	        health: maintenance # passing, warning, maintenance, critical; default: unknown
//	        node: rack7        # default: the address's host
//	        id: legacy-2       # default: name and address
//	        tags: [blue]
//	        meta: {mi-lb.weight: "5"}
//	  - name: reports
//	    datacenter: dc2
//	    instances: []
//
// The file is strict: a key that is not known, or a value that does not fit, is
// an error with its line, and the file is not used at all. A file that is
// broken, empty or missing never empties a part: the last good one stays, and
// the source is stale with the error. To have no services, write "services: []".
// The file may be replaced in any way (in place, renamed over, through links as
// in a mounted ConfigMap); it is taken up when it has stopped changing.
//
// The source of the default datacenter is named by the file's path, the others
// by the path, "#" and the datacenter.
package file
