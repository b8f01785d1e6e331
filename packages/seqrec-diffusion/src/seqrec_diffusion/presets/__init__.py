"""Settings by name; each is a YAML file in this folder that says where its values come from."""
