package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"
)

func seeds(f *testing.F) {
	f.Helper()
	archives, err := filepath.Glob("testdata/ansible/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			f.Add(file.Data)
		}
	}
	for _, name := range []string{"1-datacenter", "2-datacenter", "group_vars/all/all.yml"} {
		data, err := os.ReadFile(filepath.Join("testdata/original/0.1.0", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

// explained checks that an error says where.
func explained(t *testing.T, err error) {
	t.Helper()
	var placed *Error
	if err != nil && (!errors.As(err, &placed) || placed.At.Line == 0 || placed.Message == "") {
		t.Errorf("an error without a place: %v", err)
	}
}

func use(t *testing.T, tree *tree) {
	t.Helper()
	tree.settle()
	inv := tree.inventory(nil, nil)
	if _, err := inv.Listing(IsSecretName).MarshalJSON(); err != nil {
		t.Error(err)
	}
	if len(inv.Groups()) < 12 { // drawing is exponential in nested diamonds
		if _, err := inv.Graph("all"); err != nil {
			t.Error(err)
		}
	}
	for i, h := range inv.Hosts() {
		for name := range h.Vars() {
			_, ok, err := h.Var(name)
			if !ok && err == nil {
				t.Errorf("%s of %s vanished", name, h.Name())
			}
		}
		if i == 20 {
			break
		}
	}
}

func FuzzINI(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		tree := newTree(nil)
		if err := tree.readINI("inventory", data); err != nil {
			explained(t, err)
			return
		}
		use(t, tree)
	})
}

func FuzzYAML(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		root, err := parseDocument("inventory.yml", data)
		if err != nil {
			explained(t, err)
			return
		}
		tree := newTree(nil)
		if isDynamic(root) {
			err = tree.readDynamic("inventory.yml", root, nil)
		} else {
			err = tree.readYAML("inventory.yml", root)
		}
		if err != nil {
			explained(t, err)
			return
		}
		use(t, tree)
	})
}

func FuzzVariables(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, err := parseVars("vars.yml", data, NewKeyring("x"))
		explained(t, err)
		_ = literal(string(data))
		_, _, _ = expandPattern(string(data))
	})
}

func FuzzVault(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _, _ = openEnvelope(string(data))
	})
}
