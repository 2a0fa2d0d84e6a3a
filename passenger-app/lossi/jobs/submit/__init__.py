"""From a JobSpec to a submitted job: validate, plan, write the job directory, hand it to the scheduler. Cancel and resubmit."""
