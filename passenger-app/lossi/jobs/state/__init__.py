"""What state jobs and tasks are in: reconcile scheduler and job directory, keep the table, answer questions."""
