package base

import (
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/pki"
)

func TestAWrongClockIsToldApart(t *testing.T) {
	now := time.Now()
	authority, err := pki.NewAuthority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(pki.Subject{Name: "a", DNS: []string{"a"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(authority.Certificate(), pair.Certificate, now); err != nil {
		t.Error(err)
	}
	for _, wrong := range []time.Time{now.AddDate(-20, 0, 0), now.AddDate(20, 0, 0)} {
		if err := verify(authority.Certificate(), pair.Certificate, wrong); err == nil || !strings.Contains(err.Error(), "set the clock right") {
			t.Errorf("at %s: %v", wrong, err)
		}
	}
}
