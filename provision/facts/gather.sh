# Says what this machine is. It writes nothing, and reads nothing but the system's
# and the named files. What it says comes in sections: a line with the mark and a
# word, and a text.
#
# mark, files, contents, looks, units, packages, users, disks and stamps are set
# before. Each program that is run costs a machine about as much as all that the
# shell does itself: many things are asked of one program, where that is possible.
export LC_ALL=C TZ=UTC PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
newline='
'
set -f # names are no patterns

# say WORD: what is printed next is about that.
say() { printf '\n%s %s\n' "$mark" "$1"; }
has() { command -v "$1" >/dev/null 2>&1; }

# Without these nothing that is said here would be worth anything.
missing() {
	for tool in awk cat find groups nproc sha256sum stat; do has "$tool" || echo "$tool"; done
}

# gather prints all but what is in files.
gather() {
	say missing
	missing
	say uname
	uname -n -r -m
	say cpus
	nproc
	say addresses
	if has ip; then ip -o addr show; else cat /proc/net/fib_trie; fi
	system
	processes=$(system_files)
	printf '%s\n' "$processes"
	installed
	accounts
	disk_space
	file_facts
	if has systemctl && [ -n "$units" ]; then
		say units
		systemctl show -p Id -p LoadState -p ActiveState -p SubState -p UnitFileState -p MainPID -p NRestarts -p ActiveEnterTimestamp -p NeedDaemonReload -- $units
	fi
	case "$processes$newline" in *" dockerd$newline"*) engine ;; esac
	clock
	stamped
}

system() {
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		say cgroup
		echo 2
	elif [ -d /sys/fs/cgroup ]; then
		say cgroup
		echo 1
	fi
	if has getenforce; then
		say selinux
		enforcing=
		if [ -r /sys/fs/selinux/enforce ]; then read -r enforcing </sys/fs/selinux/enforce; fi
		case $enforcing in
		1) echo enforcing ;;
		0) echo permissive ;;
		*) echo disabled ;;
		esac
	fi
	if [ -L /etc/resolv.conf ]; then
		say resolv.conf-link
		readlink /etc/resolv.conf
	fi
}

# Files of the system, sockets that listen and which processes have them, and who
# has the package manager's lock: what find lists are files that processes have open.
system_files() {
	set +f
	find /proc/[0-9]*/fd -maxdepth 1 '(' -lname 'socket:*' -o -lname /var/lib/dpkg/lock-frontend -o -lname /var/lib/dpkg/lock \
		-o -lname /var/lib/apt/lists/lock -o -lname /var/cache/apt/archives/lock \
		-o -lname /var/lib/rpm/.rpm.lock -o -lname /usr/lib/sysimage/rpm/.rpm.lock ')' -printf '%h %l\n' | awk -v mark="$mark" '
		function say(word) { printf "\n%s %s\n", mark, word }
		function lines(word, file, most,    line, n) {
			say(word)
			while (n++ < most && (getline line < file) > 0) print line
			close(file)
		}
		function sockets(kind, state,    file, line, field) {
			file = "/proc/net/" kind
			while ((getline line < file) > 0) {
				split(line, field, " ")
				if (field[4] != state) continue
				print kind, field[2], field[3], field[10]
				wanted[field[10]] = 1
			}
			close(file)
		}
		BEGIN {
			lines("os-release", "/etc/os-release", 100)
			lines("memory", "/proc/meminfo", 1)
			lines("status", "/proc/self/status", 20)
			lines("route", "/proc/net/route", 1e6)
			lines("resolv.conf", "/etc/resolv.conf", 1e4)
			say("sockets")
			sockets("tcp", "0A"); sockets("tcp6", "0A"); sockets("udp", "07"); sockets("udp6", "07")
			say("comm")
			for (i = 1; i < ARGC; i++) {
				file = ARGV[i] "/comm"
				if ((getline line < file) > 0) print substr(ARGV[i], 7), line
				close(file)
			}
			ARGC = 1 # read standard input
		}
		$2 !~ /^socket:/ { locks = locks $0 "\n"; next }
		{
			inode = $2
			gsub(/[^0-9]/, "", inode)
			if ((inode in wanted) && !seen[inode]++) {
				split($1, directory, "/")
				owners = owners inode " " directory[3] "\n"
				listens[directory[3]] = 1
			}
		}
		END {
			say("owners")
			printf "%s", owners
			say("locks")
			printf "%s", locks
			say("cgroups")
			for (pid in listens) {
				file = "/proc/" pid "/cgroup"
				while ((getline line < file) > 0) if (line ~ /^(0:|1:name=systemd:)/) print pid, line
				close(file)
			}
		}' /proc/[0-9]*
	set -f
}

# The package of systemd says which one it is for much less than systemd does.
installed() {
	found=
	if has dpkg-query; then
		say dpkg
		found=$(dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n' -- systemd $packages)
	elif has rpm; then
		say rpm
		found=$(rpm -q --qf 'mi-lb %{NAME} %{VERSION}-%{RELEASE}\n' -- systemd $packages)
	fi
	printf '%s\n' "$found"
	case $newline$found in
	*"${newline}systemd "* | *"${newline}mi-lb systemd "*) ;;
	*)
		if has systemctl; then
			say systemd
			systemctl --version
		fi
		;;
	esac
	if [ -r /etc/dnf/plugins/versionlock.list ]; then
		say versionlock
		cat /etc/dnf/plugins/versionlock.list
	fi
}

accounts() {
	[ -n "$users" ] || return 0
	found=$(getent passwd $users)
	[ -n "$found" ] || return 0
	say passwd
	printf '%s\n' "$found"
	names=
	for user in $users; do
		case $newline$found in *"$newline$user:"*) names="$names $user" ;; esac
	done
	say groups
	groups $names
}

# stat prints a line for each path, in their order.
disk_space() {
	[ -n "$disks" ] || return 0
	say disks
	IFS=$newline
	set --
	for path in $disks; do
		while [ ! -e "$path" ] && [ -n "$path" ]; do path=${path%/*}; done
		set -- "$@" "${path:-/}"
	done
	unset IFS
	stat -f -c '%b %a %S %d' -- "$@"
}

file_facts() {
	IFS=$newline
	set -- $looks $files $contents
	if [ $# -gt 0 ]; then
		say stat
		find -L "$@" -maxdepth 0 -printf '%y %m %s %T@ %u:%g\t%p\n' -type d -empty -printf 'empty %p\n'
	fi
	set --
	for file in $files $contents; do
		if [ -f "$file" ]; then set -- "$@" "$file"; fi
	done
	unset IFS
	if [ $# -gt 0 ]; then
		say sha256
		sha256sum -- "$@"
	fi
}

# Docker's own client is slow to start.
engine() {
	answer=
	if has curl && [ -S /run/docker.sock ]; then
		answer=$(curl -sf --max-time 10 --unix-socket /run/docker.sock http://docker/version)
	fi
	if [ -z "$answer" ] && has docker; then answer=$(timeout 10 docker version --format '{{json .Server}}'); fi
	say docker
	printf '%s\n' "$answer"
}

# Whether something keeps the clock right. timedatectl knows best, but has systemd
# start a program for it, in a sandbox, which costs more than everything else here.
clock() {
	if [ -e /run/systemd/timesync/synchronized ]; then
		say synchronized
		echo yes
		return
	fi
	case "$processes$newline" in
	*" chronyd$newline"*)
		case $(timeout 3 chronyc -n tracking) in
		*Leap*Not*) ;;
		*Leap*)
			say synchronized
			echo yes
			return
			;;
		esac
		;;
	esac
	if has timedatectl; then
		say synchronized
		timeout 3 timedatectl show -p NTPSynchronized --value
	fi
}

stamped() {
	set +f
	set --
	for file in "$stamps"/*; do
		if [ -f "$file" ]; then set -- "$@" "$file"; fi
	done
	set -f
	if [ $# -gt 0 ]; then
		say stamps
		awk 'FNR == 1 { name = FILENAME; sub(/.*\//, "", name); print name, $0; nextfile }' "$@"
	fi
}

# file_contents prints how long each file is, and then all of them. It comes last,
# as what is in a file may be anything.
file_contents() {
	IFS=$newline
	set -- $contents
	unset IFS
	if [ $# -gt 0 ]; then
		say contents
		find -L "$@" -maxdepth 0 -type f -size -2049 -readable -printf '%s %p\n' -exec cat -- {} +
	fi
}

exec </dev/null 2>/dev/null
# What time it is must be said when it is asked for, and the rest need not come in
# a hundred pieces.
printf 'mi-lb-facts %s\n\n%s now\n%s\n' "$mark" "$mark" "$(date +%s.%N)"
found=$(gather)
printf '%s\n' "$found"
file_contents
say end
