package flags

import "strings"

func kinds(into map[string]Kind, kind Kind, names string) {
	for _, name := range strings.Fields(names) {
		into[name] = kind
	}
}

func common() map[string]Kind {
	all := map[string]Kind{}
	kinds(all, Text, `firewall_rules hooks hostname http_authenticators ip_discovery_command modules modules_dir
		external_log_file log_dir logging_level work_dir authorizers http_framework_authenticators`)
	kinds(all, Address, "ip advertise_ip")
	kinds(all, Port, "port advertise_port")
	kinds(all, Bool, `authenticate_http_readonly authenticate_http_readwrite help hostname_lookup version
		initialize_driver_logging quiet`)
	kinds(all, Duration, "zk_session_timeout")
	kinds(all, Number, "logbufsecs")
	kinds(all, JSON, "domain")
	return all
}

// Master are the flags of mesos-master 1.11.
func Master() map[string]Kind {
	all := common()
	kinds(all, Text, `agent_removal_rate_limit allocator authenticators cluster credentials
		fair_sharing_excluded_resource_names framework_sorter min_allocatable_resources rate_limits registry role_sorter
		roles user_sorter webui_dir weights whitelist zk offer_constraints_re2_max_mem`)
	kinds(all, Bool, `authenticate_agents authenticate_frameworks authenticate_http_frameworks filter_gpu_resources
		log_auto_initialize publish_per_framework_metrics require_agent_domain root_submissions registry_strict`)
	kinds(all, Duration, `agent_ping_timeout agent_reregister_timeout allocation_interval authentication_v0_timeout
		offer_timeout registry_fetch_timeout registry_gc_interval registry_max_agent_age registry_store_timeout`)
	kinds(all, Number, `max_agent_ping_timeouts max_completed_frameworks max_completed_tasks_per_framework
		max_operator_event_stream_subscribers max_unreachable_tasks_per_framework quorum registry_max_agent_count
		offer_constraints_re2_max_program_size`)
	kinds(all, Percent, "recovery_agent_removal_limit")
	kinds(all, JSON, "acls")
	return all
}

// MasterAliases are older names of them.
func MasterAliases() map[string]string {
	return map[string]string{
		"authenticate": "authenticate_frameworks", "authenticate_slaves": "authenticate_agents",
		"slave_ping_timeout": "agent_ping_timeout", "max_slave_ping_timeouts": "max_agent_ping_timeouts",
		"slave_reregister_timeout": "agent_reregister_timeout", "slave_removal_rate_limit": "agent_removal_rate_limit",
		"recovery_slave_removal_limit": "recovery_agent_removal_limit",
	}
}

// Agent are the flags of mesos-agent 1.11.
func Agent() map[string]Kind {
	all := common()
	kinds(all, Text, `appc_simple_discovery_uri_prefix appc_store_dir attributes authenticatee authorizer cgroups_hierarchy
		cgroups_net_cls_primary_handle cgroups_net_cls_secondary_handles cgroups_root container_logger containerizers credential
		default_role disk_profile_adaptor docker docker_config docker_mesos_image docker_registry docker_socket docker_store_dir
		docker_volume_checkpoint_dir docker_volume_chown fetcher_cache_dir fetcher_cache_size frameworks_home hadoop_home
		http_credentials http_executor_authenticators image_gc_config image_providers image_provisioner_backend isolation
		jwt_secret_key launcher launcher_dir master master_detector network_cni_config_dir network_cni_plugins_dir
		nvidia_gpu_devices perf_events qos_controller reconfiguration_policy recover resource_estimator
		resource_provider_config_dir resources runtime_dir sandbox_directory secret_resolver seccomp_config_dir
		seccomp_profile_name systemd_runtime_directory volume_gid_range volume_secret_dir xfs_kill_containers xfs_project_range
		default_container_dns default_container_info effective_capabilities bounding_capabilities allowed_capabilities
		executor_environment_variables gc_disk_headroom host_path_volume_force_creation network_cni_root_dir_persist`)
	kinds(all, Bool, `authenticate_http_executors cgroups_cpu_enable_pids_and_tids_count cgroups_enable_cfs cgroups_limit_swap
		check_agent_port_only disallow_sharing_agent_ipc_namespace disallow_sharing_agent_pid_namespace docker_ignore_runtime
		docker_kill_orphans enforce_container_disk_quota enforce_container_ports http_command_executor
		gc_non_executor_container_sandboxes revocable_cpu_low_priority strict switch_user systemd_enable_support`)
	kinds(all, Duration, `authentication_backoff_factor authentication_timeout_max authentication_timeout_min
		cgroups_destroy_timeout container_disk_watch_interval disk_watch_interval docker_remove_delay docker_stop_timeout
		executor_registration_timeout executor_reregistration_timeout executor_reregistration_retry_interval
		executor_shutdown_grace_period fetcher_stall_timeout gc_delay http_heartbeat_interval
		oversubscribed_resources_interval perf_duration perf_interval qos_correction_interval_min recovery_timeout
		registration_backoff_factor`)
	kinds(all, Number, "default_shm_size max_completed_executors_per_framework")
	return all
}
