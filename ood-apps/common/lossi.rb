# Asks Lossi, as the user, for what submit.yml.erb prints. The form's values go in as JSON; JSON comes back, which is YAML.
# Loaded anew for each form: the process of Open OnDemand's dashboard lives on when another version is installed.
require "json"
require "open3"

module Lossi
  # Raises the refusal as it is to stand above the form. `folder` is that of the app, `name` the one that `lossi.ood` knows it by.
  def self.submission(name, folder, values)
    folder = File.realpath(folder)
    environment = File.join(folder, "environment")
    python = File.file?(environment) ? File.open(environment, &:gets).to_s.chomp : "../lossi/bin/python"
    unset = ENV.keys.grep(/\A(PYTHON|RUBYOPT|RUBYLIB|BUNDLE|GEM_|VIRTUAL_ENV|SECRET_KEY_BASE)/).to_h { |key| [key, nil] }
    command = [unset, File.expand_path(python, folder), "-I", "-m", "lossi.ood", "submit", name]
    begin
      answer, refusal, status = Open3.capture3(*command, stdin_data: JSON.generate(values), chdir: "/")
    rescue SystemCallError => error
      raise "Lossi cannot be started: #{error.message}. Please tell your site's support to run: lossi doctor"
    end
    return answer.dup.force_encoding("UTF-8") if status.success?

    refusal = refusal.dup.force_encoding("UTF-8").scrub.strip
    raise(refusal.empty? ? "Lossi ended with #{status}" : refusal[-1000..-1] || refusal)
  end
end
