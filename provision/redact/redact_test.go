package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretsDoNotShow(t *testing.T) {
	const secret = "s3cr3t-value"
	type holder struct {
		Name   string
		Secret Text
		inner  Text
	}
	h := holder{"n", New(secret), New(secret)}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", h.Secret, "holder", h)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", h.Secret, "holder", h)
	encoded, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{
		fmt.Sprint(h.Secret), fmt.Sprintf("%v %+v %#v %s %q", h.Secret, h.Secret, h.Secret, h.Secret, h.Secret), string(encoded), log.String(),
		fmt.Sprintf("%+v", h.Secret), fmt.Errorf("wrong: %v", h.Secret).Error(),
	} {
		if strings.Contains(shown, secret) {
			t.Errorf("it shows: %s", shown)
		}
	}
	if h.Secret.Reveal() != secret || h.inner.IsEmpty() || !New("").IsEmpty() {
		t.Error("a secret must be there for who asks")
	}
}

func TestMaskReplacesWhatItKnows(t *testing.T) {
	var m Mask
	m.Add(New("password1"), New("password1longer"), New("ab"), New("line one\nline two"))
	for in, want := range map[string]string{
		"x password1 y":       "x (hidden) y",
		"password1longer":     "(hidden)",
		"abc":                 "abc",
		"see line two there":  "see (hidden) there",
		"nothing to hide":     "nothing to hide",
		"password1password1x": "(hidden)(hidden)x",
	} {
		if got := m.Mask(in); got != want {
			t.Errorf("%q: %q; want %q", in, got, want)
		}
	}
}
