package flags

//lint:file-ignore ST1005 these are the words of Marathon.

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const marathonValues = `access_control_allow_origin backup_location decline_offer_duration default_accepted_resource_roles
	default_network_name deprecated_features enable_features env_vars_prefix executor failover_timeout framework_name
	gpu_scheduling_behavior group_versions_cache_size hostname http_address http_credentials http_event_callback_slow_consumer_timeout
	http_event_request_timeout http_port http_realm https_address https_port kill_chunk_size kill_retry_timeout launch_token
	launch_token_refresh_interval leader_proxy_connection_timeout leader_proxy_max_open_connections leader_proxy_read_timeout
	local_port_max local_port_min logging_level master max_instances_per_offer max_running_deployments
	max_queued_root_group_updates mesos_authentication_principal mesos_authentication_secret mesos_authentication_secret_file
	mesos_bridge_name mesos_heartbeat_failure_threshold mesos_heartbeat_interval mesos_leader_ui_url mesos_role mesos_user
	metrics_datadog_host metrics_datadog_port metrics_datadog_protocol metrics_datadog_transmission_interval
	metrics_histogram_reservoir_highest_trackable_value metrics_histogram_reservoir_lowest_discernible_value
	metrics_histogram_reservoir_resetting_chunks metrics_histogram_reservoir_resetting_interval
	metrics_histogram_reservoir_significant_digits metrics_name_prefix metrics_statsd_host metrics_statsd_port
	metrics_statsd_transmission_interval min_revive_offers_interval new_group_enforce_role offer_matching_timeout
	on_elected_prepare_timeout plugin_conf plugin_dir reconciliation_initial_delay reconciliation_interval restore_location
	save_tasks_to_launch_timeout scale_apps_initial_delay scale_apps_interval ssl_keystore_password ssl_keystore_path
	task_launch_confirm_timeout task_launch_timeout task_lost_expunge_initial_delay task_lost_expunge_interval
	task_reservation_timeout webui_url zk zk_compression_threshold zk_connection_timeout zk_max_node_size zk_max_versions
	zk_session_timeout zk_timeout`

const marathonBooleans = `checkpoint ha http http_compression leader_proxy_ssl_ignore_hostname maintenance_mode
	mesos_authentication metrics_datadog metrics_histogram_reservoir_reset_on_snapshot metrics_prometheus metrics_statsd
	revive_offers_for_new_apps store_cache suppress_offers tracing use_mesos_v1 zk_compression`

// notFlags are variables of tasks and of Marathon's own start script.
var notFlags = []string{"MARATHON_APP_", "MARATHON_HOME"}

// Marathon reads flags as Marathon does: the environment becomes arguments. A flag
// given both ways is an error; a boolean is on with an empty value, and off under its
// name with "disable_".
func Marathon(arguments, environment []string) (Values, error) {
	text, boolean := map[string]bool{}, map[string]bool{}
	for _, name := range strings.Fields(marathonValues) {
		text[name] = true
	}
	for _, name := range strings.Fields(marathonBooleans) {
		boolean[name] = true
	}
	v := Values{}
	add := func(name string, value *string) (used bool, err error) {
		positive, off := strings.CutPrefix(name, "disable_")
		switch {
		case boolean[name], off && boolean[positive]:
			if value != nil && *value != "" {
				return false, fmt.Errorf("Excess arguments provided: '%s'; a boolean has no value: give %s as an empty variable", *value, name)
			}
			key, on := name, "true"
			if off && !boolean[name] {
				key, on = positive, "false"
			}
			if v.Has(key) {
				return false, fmt.Errorf("flag %q is given twice", key)
			}
			v[key] = on
			return false, nil
		case !text[name]:
			return false, fmt.Errorf("Unknown option '%s'", name)
		case value == nil || *value == "":
			return false, fmt.Errorf("Required option '%s' not found: it has no value", name)
		case v.Has(name):
			return false, fmt.Errorf("Option '%s' is given both as an argument and as a variable", name)
		}
		v[name] = *value
		return true, nil
	}
	for i := 0; i < len(arguments); i++ {
		name, ok := strings.CutPrefix(arguments[i], "--")
		if !ok {
			return nil, fmt.Errorf("Excess arguments provided: '%s'", arguments[i])
		}
		var value *string
		if n, after, has := strings.Cut(name, "="); has {
			name, value = n, &after
		} else if text[name] && i+1 < len(arguments) {
			i++
			value = &arguments[i]
		}
		if _, err := add(name, value); err != nil {
			return nil, err
		}
	}
next:
	for _, entry := range environment {
		name, value, _ := strings.Cut(entry, "=")
		for _, prefix := range notFlags {
			if strings.HasPrefix(name, prefix) {
				continue next
			}
		}
		flag, ours := strings.CutPrefix(name, "MARATHON_")
		if !ours {
			if name == "MESOSPHERE_HTTP_CREDENTIALS" {
				if v.Has("http_credentials") {
					return nil, errors.New("Option 'http_credentials' is given both as an argument and as a variable")
				}
				v["http_credentials"] = value
			}
			continue
		}
		if _, err := add(strings.ToLower(flag), &value); err != nil {
			return nil, err
		}
	}
	return v, checkMarathon(v)
}

func checkMarathon(v Values) error {
	for _, name := range []string{"http_port", "https_port", "local_port_min", "local_port_max", "failover_timeout", "task_launch_timeout", "zk_session_timeout", "zk_timeout"} {
		if _, err := strconv.Atoi(v.Text(name, "0")); err != nil {
			return fmt.Errorf("Bad arguments for option '%s': '%s' - bad Int value", name, v[name])
		}
	}
	switch {
	case !v.Has("master"):
		return errors.New("Required option 'master' not found")
	case v.Has("mesos_authentication_secret") && v.Has("mesos_authentication_secret_file"):
		return errors.New("only one of mesos_authentication_secret and mesos_authentication_secret_file may be given")
	case v.Bool("mesos_authentication", false) && !v.Has("mesos_authentication_principal"):
		return errors.New("mesos_authentication is set, and mesos_authentication_principal is not")
	case v.Number("local_port_min", 10000) >= v.Number("local_port_max", 20000):
		return errors.New("local_port_min must be below local_port_max")
	case v.Has("http_credentials") && !strings.Contains(v["http_credentials"], ":"):
		return errors.New("http_credentials must have the form user:password")
	}
	return nil
}

// MarathonSecret is what Marathon logs in to Mesos with: the bytes of the file as
// they are, a newline at its end included.
func MarathonSecret(v Values) (string, error) {
	if !v.Bool("mesos_authentication", false) {
		return "", nil
	}
	if !v.Has("mesos_authentication_secret_file") {
		return v["mesos_authentication_secret"], nil
	}
	data, err := os.ReadFile(v["mesos_authentication_secret_file"])
	if err != nil {
		return "", fmt.Errorf("the secret of mesos_authentication_secret_file cannot be read: %w", err)
	}
	return string(data), nil
}
