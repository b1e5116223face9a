package consul

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
)

// snapshotPatience is how long a snapshot may take.
const snapshotPatience = 10 * time.Minute

// Save implements [component.Saver]: it writes a snapshot of the datacenter's state by
// its leader, as "consul snapshot save" does, which has keys, catalog, and tokens with
// their secrets.
func (server) Save(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access, w io.Writer) error {
	c := configurator{p: p, d: d, a: a}
	through, err := c.connect(ctx)
	if err != nil {
		return err
	}
	if err := through.snapshot(ctx, w); err != nil {
		return fmt.Errorf("take a snapshot of Consul in datacenter %s through %s: %w", d.Name, through.node, err)
	}
	return nil
}

// mostWords is how much of an answer that is no snapshot is shown, in bytes.
const mostWords = 300

func (c agentAPI) snapshot(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotPatience)
	defer cancel()
	const path = "/v1/snapshot"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Consul-Token", c.token.Reveal())
	client := c.host.HTTPClient("", "")
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		said, err := io.ReadAll(io.LimitReader(response.Body, mostWords))
		if err != nil {
			return err
		}
		return &apiError{path, response.StatusCode, strings.Join(strings.Fields(string(said)), " ")}
	}
	return copySnapshot(w, response.Body)
}

// copySnapshot copies one, and proves it whole by the checksums in it.
func copySnapshot(w io.Writer, r io.Reader) error {
	r = io.TeeReader(r, w)
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("it is no snapshot: %w", err)
	}
	sums, wanted := map[string]string{}, ""
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("it is damaged: %w", err)
		}
		hash := sha256.New()
		var text bytes.Buffer
		into := io.Writer(hash)
		if header.Name == "SHA256SUMS" {
			into = &text
		}
		if _, err := io.Copy(into, archive); err != nil {
			return fmt.Errorf("it is damaged: %w", err)
		}
		if header.Name == "SHA256SUMS" {
			wanted = text.String()
		} else {
			sums[header.Name] = hex.EncodeToString(hash.Sum(nil))
		}
	}
	// The checksum of the compressed data is behind the archive.
	if _, err := io.Copy(io.Discard, unzipped); err != nil {
		return fmt.Errorf("it is damaged: %w", err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("it is damaged: %w", err)
	}
	proved := 0
	for lines := bufio.NewScanner(strings.NewReader(wanted)); lines.Scan(); {
		sum, name, _ := strings.Cut(lines.Text(), "  ")
		if sums[name] != sum {
			return fmt.Errorf("it is damaged: the checksum of %s is not right", name)
		}
		proved++
	}
	if proved == 0 || proved != len(sums) || sums["state.bin"] == "" {
		return errors.New("it is damaged: it lacks checksums or the state")
	}
	return nil
}
