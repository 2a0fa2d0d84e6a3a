"""Users' files of any kind. Knows nothing of projects, jobs or runs and touches only the paths it is given.

The public API is these modules, imported one by one because the command line needs few of them:

- `atomic`       atomic writes, and a lock for read-change-write
- `roots`        allowed folders, and user input resolved to paths below them
- `beneath`      opening files below a folder without following links outside it
- `permissions`  who else can write to a path; folders that follow a project's group
- `tail`         reading a growing file from an offset
- `document`     YAML with line numbers and limits
- `yaml_edit`    changing values in a YAML file, comments and formatting kept
- `space`        free space, free files and quotas
- `locks`        whether file locks work across nodes
- `downloads`    headers for files sent to a browser
- `text`         text made safe for terminals and spreadsheets
"""
