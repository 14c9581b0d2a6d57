#!/usr/bin/env python3
"""Runs examples/ring.c with 1, 2, 3 and 4 processes: each run compares its bits with one call in one process, and all
runs must print the same hash. Also with shards that are empty, and with processes that use different tiers.

    ring.py MPIEXEC RING
    ring.py --as TIER,TIER,... COMMAND ...     COMMAND with TRIL_ISA as this process's rank says: what the launcher starts
"""
import os
import subprocess
import sys
import tempfile

# Nothing but loopback and private memory: a container may have no other network, no ssh, no or a full /dev/shm, fewer
# cores than processes, and root as its only user. Other launchers than Open MPI's do not look at these.
SETTINGS = {
    'OMPI_ALLOW_RUN_AS_ROOT': '1',
    'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
    'OMPI_MCA_plm': 'isolated',                  # starts processes here, without looking for ssh or a batch system
    'OMPI_MCA_ras': '^slurm,tm,gridengine,lsf',  # and not within a batch job's slots
    'OMPI_MCA_rmaps_base_oversubscribe': '1',
    'OMPI_MCA_hwloc_base_binding_policy': 'none',
    'OMPI_MCA_mpi_yield_when_idle': '1',
    'OMPI_MCA_oob_tcp_if_include': '127.0.0.0/8',
    'OMPI_MCA_pml': 'ob1',
    'OMPI_MCA_btl': 'self,tcp',                  # not vader, which puts its files into /dev/shm
    'OMPI_MCA_btl_tcp_if_include': '127.0.0.0/8',
    'OMPI_MCA_osc': '^ucx',
    'PMIX_MCA_gds': 'hash',                      # not its store in shared memory
    'PMIX_MCA_psec': 'native',
    'PMIX_MCA_pcompress_base_silence_warning': '1',
    'HWLOC_HIDE_ERRORS': '2',
    'PRTE_ALLOW_RUN_AS_ROOT': '1',               # Open MPI 5
    'PRTE_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
    'PRTE_MCA_rmaps_default_mapping_policy': ':oversubscribe',
    'PRTE_MCA_hwloc_default_binding_policy': 'none',
    'MPIEXEC_TIMEOUT': '120',                    # seconds for one run: a hanging one ends here, processes and all
}


# What launchers tell a process its rank by: Open MPI; MPICH and its kin.
RANKS = ['OMPI_COMM_WORLD_RANK', 'PMI_RANK', 'PMIX_RANK']


def run_as(tiers, command):
    """Not by a command for each process with colons between them: Open MPI 5.0.7 crashes at that."""
    rank = next((os.environ[name] for name in RANKS if name in os.environ), None)
    if rank is None:
        sys.exit('ring.py: none of %s is set' % ', '.join(RANKS))
    os.execvpe(command[0], command, dict(os.environ, TRIL_ISA=tiers[int(rank)]))


def ring(mpiexec, processes, *arguments):
    """processes: for each the TRIL_ISA that is its ceiling, or None. Returns the hash."""
    command = [mpiexec, '-n', str(len(processes))]
    if any(processes):
        command += [sys.executable, os.path.realpath(__file__), '--as', ','.join(processes)]
    command += arguments
    print('$ ' + ' '.join(command), flush=True)
    with tempfile.TemporaryDirectory() as folder:  # the launcher's own files, which it leaves behind when it is killed
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, universal_newlines=True,
                              env=dict(os.environ, TMPDIR=folder, **SETTINGS))
    print(done.stdout, end='', flush=True)
    words = done.stdout.split()
    if done.returncode != 0 or words[:2] != [str(len(processes)), 'ranks,'] or words[4:6] != ['same', 'bits,']:
        sys.exit('ring.py: exit status %d, or not the line that was expected' % done.returncode)
    return words[-1]


def main():
    if sys.argv[1] == '--as':
        run_as(sys.argv[2].split(','), sys.argv[3:])
    mpiexec, exe = sys.argv[1:]
    # 1100 tokens are 5 blocks of keys, the last one short: shards of 1 or 2 blocks on 4 processes.
    hashes = {ring(mpiexec, [None] * n, exe, '1100') for n in (1, 2, 3, 4)}
    hashes.add(ring(mpiexec, ['avx512', 'scalar', 'avx2'], exe, '1100'))
    if len(hashes) != 1:
        sys.exit('ring.py: one sequence, several results: %s' % sorted(hashes))
    # 2 blocks on 4 processes, two of which have no token.
    hashes = {ring(mpiexec, [None] * n, exe, '300') for n in (1, 4)}
    if len(hashes) != 1:
        sys.exit('ring.py: one sequence, several results: %s' % sorted(hashes))


if __name__ == '__main__':
    main()
