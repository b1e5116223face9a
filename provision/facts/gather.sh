# Says what this machine is. It writes nothing, and reads nothing but its own
# process's, the system's and the named files. Every record is a line: a word, a
# name and a text, both in base64.
#
# files, contents, looks, units, packages, users, disks and stamps are set before.
export LC_ALL=C TZ=UTC PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

pack() { base64 -w 0; }
name() { printf '%s ' "$1"; [ -z "$2" ] || printf %s "$2" | pack; printf ' '; }
# say WORD NAME: standard input is the text.
say() { name "$1" "$2"; pack; echo; }
has() { command -v "$1" >/dev/null 2>&1; }

gather() {
	echo 'mi-lb-facts 1'
	date +%s.%N | say now ''
	id -u | say uid ''
	uname -n | say hostname ''
	uname -r | say kernel ''
	uname -m | say arch ''
	cat /etc/os-release 2>/dev/null | say os-release ''
	if has systemctl; then systemctl --version 2>/dev/null | say systemd ''; fi
	if has timedatectl; then timeout 3 timedatectl show -p NTPSynchronized --value 2>/dev/null | say synchronized ''; fi
	nproc | say cpus ''
	grep MemTotal /proc/meminfo | say memory ''
	if has ip; then ip -o addr show 2>/dev/null | say addresses ''; else cat /proc/net/fib_trie 2>/dev/null | say routes ''; fi
	cat /proc/net/route 2>/dev/null | say route ''
	stat -f -c %T /sys/fs/cgroup 2>/dev/null | say cgroup ''
	if has getenforce; then getenforce 2>/dev/null | say selinux ''; fi
	cat /etc/resolv.conf 2>/dev/null | say resolv.conf ''
	readlink /etc/resolv.conf 2>/dev/null | say resolv.conf-link ''
	sockets
	processes
	if grep -qsx dockerd /proc/[0-9]*/comm && has docker; then
		timeout 10 docker version --format '{{json .Server}}' 2>/dev/null | say docker ''
	fi
	find /proc/[0-9]*/fd -maxdepth 1 '(' -lname /var/lib/dpkg/lock-frontend -o -lname /var/lib/dpkg/lock -o -lname /var/lib/apt/lists/lock \
		-o -lname /var/cache/apt/archives/lock -o -lname /var/lib/rpm/.rpm.lock -o -lname /usr/lib/sysimage/rpm/.rpm.lock ')' -printf '%h %l\n' 2>/dev/null | say locks ''
	installed
	for user in $users; do
		if line=$(getent passwd "$user"); then
			{ echo "$line"; id -Gn "$user"; } | say user "$user"
		fi
	done
	disk_of
	file_facts
	if has systemctl && [ -n "$units" ]; then
		systemctl show -p Id -p LoadState -p ActiveState -p SubState -p UnitFileState -p MainPID -p NRestarts -p ActiveEnterTimestamp -p NeedDaemonReload -- $units 2>/dev/null | say units ''
	fi
	if [ -d "$stamps" ]; then
		for f in "$stamps"/*; do
			if [ -f "$f" ]; then
				IFS= read -r line <"$f"
				printf '%s %s\n' "${f##*/}" "$line"
			fi
		done | say stamps ''
	fi
	echo end
}

# Sockets that listen, and which processes have them.
sockets() {
	for kind in tcp tcp6 udp udp6; do
		if [ -r "/proc/net/$kind" ]; then echo "/proc/net/$kind"; fi
	done | xargs -r awk 'FNR > 1 && $4 == (FILENAME ~ /tcp/ ? "0A" : "07") { kind = FILENAME; sub(/.*\//, "", kind); print kind, $2, $3, $10 }' | say sockets ''
	find /proc/[0-9]*/fd -maxdepth 1 -lname 'socket:*' -printf '%h %l\n' 2>/dev/null | awk '
		function wanted(file, state,    line, field) {
			while ((getline line < file) > 0) {
				split(line, field, " ")
				if (field[4] == state) wants[field[10]] = 1
			}
		}
		BEGIN { wanted("/proc/net/tcp", "0A"); wanted("/proc/net/tcp6", "0A"); wanted("/proc/net/udp", "07"); wanted("/proc/net/udp6", "07") }
		{
			split($1, directory, "/"); inode = $2; gsub(/[^0-9]/, "", inode)
			if ((inode in wants) && !seen[inode]++) print inode, directory[3]
		}' | say owners ''
}

processes() {
	grep -H '' /proc/[0-9]*/comm 2>/dev/null | say comm ''
	grep -HE '^(0:|1:name=systemd:)' /proc/[0-9]*/cgroup 2>/dev/null | say cgroups ''
}

installed() {
	[ -n "$packages" ] || return 0
	if has dpkg-query; then
		dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n' -- $packages 2>/dev/null | say dpkg ''
	elif has rpm; then
		rpm -q --qf 'mi-lb %{NAME} %{VERSION}-%{RELEASE}\n' -- $packages 2>/dev/null | grep '^mi-lb ' | say rpm ''
		cat /etc/dnf/plugins/versionlock.list 2>/dev/null | say versionlock ''
	fi
}

# df prints a line for each path, in their order.
disk_of() {
	[ -n "$disks" ] || return 0
	{
		each "$disks" | while IFS= read -r path; do
			while [ ! -e "$path" ] && [ -n "$path" ]; do path=${path%/*}; done
			printf '%s\0' "${path:-/}"
		done | xargs -0 df -Pk
		echo inodes
		each "$disks" | while IFS= read -r path; do
			while [ ! -e "$path" ] && [ -n "$path" ]; do path=${path%/*}; done
			printf '%s\0' "${path:-/}"
		done | xargs -0 df -Pi
	} 2>/dev/null | say disks ''
}

each() { [ -z "$1" ] || printf '%s\n' "$1"; }

file_facts() {
	each "$files
$contents
$looks" | grep . | tr '\n' '\0' | xargs -0 -r stat -L -c '%f %U:%G %s %Y %n' -- 2>/dev/null | say stat ''
	each "$files
$contents" | grep . | while IFS= read -r f; do
		if [ -f "$f" ]; then printf '%s\0' "$f"; fi
	done | xargs -0 -r sha256sum -- 2>/dev/null | say sha256 ''
	each "$files
$contents
$looks" | grep . | while IFS= read -r f; do
		if [ -d "$f" ]; then printf '%s\0' "$f"; fi
	done | xargs -0 -r sh -c 'find "$@" -maxdepth 0 -empty' sh 2>/dev/null | say empty ''
	each "$contents" | while IFS= read -r f; do
		if [ -f "$f" ] && [ -r "$f" ]; then head -c 1048576 -- "$f" | say content "$f"; fi
	done
}

gather </dev/null
