// Package config reads what the operator has decided: one YAML file, overridden by
// the environment, overridden by flags.
//
// Out comes a validated [Config]. Every mistake is an [Error] that names the file
// and line, the key and, for a key that does not exist, the nearest that does. The
// package opens no file but the configuration's own, and no connection at all.
package config
