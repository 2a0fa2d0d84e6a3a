"""Files of users, whatever they are: knows nothing of projects, jobs or runs, and touches only the paths it is given.

The door is its modules, imported one by one because the command line needs few of them:

- `atomic`       writing that is whole or not at all
- `roots`        the folders that users may name, and their texts turned into paths
- `beneath`      opening below a folder without following links out of it
- `permissions`  who could change what lies below a folder; folders that follow a project's group
- `tail`         a growing file from an offset
- `document`     YAML with line numbers and limits
- `downloads`    headers for files that a browser gets
- `text`         text made harmless for terminals and spreadsheets
"""
