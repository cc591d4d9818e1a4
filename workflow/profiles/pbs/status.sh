#!/bin/sh
# Says of a PBS job whether it is "running", has ended in "success" or "failed".
# -x also finds jobs that have ended, where PBS keeps their history. Of a job that PBS has
# forgotten "success" is said: the engine then looks for what the job had to write.
answer=$(qstat -x -f "$1" 2>&1)
code=$?
state=$(printf '%s\n' "$answer" | sed -n 's/^ *job_state = *//p')
exit_status=$(printf '%s\n' "$answer" | sed -n 's/^ *[Ee]xit_status = *//p')
case "$answer" in
    *"Unknown Job"*) echo success; exit 0 ;;
esac
if [ "$code" -ne 0 ]; then
    echo running  # PBS does not answer: ask again later
elif [ "$state" = F ] || [ "$state" = C ]; then
    if [ "$exit_status" = 0 ]; then echo success; else echo failed; fi
else
    echo running
fi
