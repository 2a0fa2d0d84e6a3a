# Renders templates as Open OnDemand does (trim mode "-"), many in one process: reads a JSON list of requests, prints a list of answers.
# A request: path; kind "form" (top level), "struct" (bare `names`, as submit and view see them) or "session" (the session's
# methods); yaml: true also parses the result as Open OnDemand does.
require "erb"
require "json"
require "ostruct"
require "pathname"
require "yaml"

# The object behind info and completed.
class Session
  attr_reader :id, :staged_root, :title, :job_id, :cluster_id

  def initialize(names)
    names.each { |name, value| instance_variable_set("@#{name}", value) }
    @staged_root = Pathname.new(names["staged_root"]) if names["staged_root"]
  end

  def completed? = !!@completed
  def running? = !!@running
  def get_binding = binding
end

def scope(request)
  case request["kind"]
  when "form" then TOPLEVEL_BINDING
  when "struct" then OpenStruct.new(request["names"]).instance_eval { binding }
  when "session" then Session.new(request["names"]).get_binding
  end
end

def answer(request)
  path = Pathname.new(request["path"])
  erb = ERB.new(path.read, trim_mode: "-")
  erb.filename = path.to_s
  text = erb.result(scope(request))
  request["yaml"] ? { "text" => text, "yaml" => YAML.safe_load(text) } : { "text" => text }
rescue StandardError, SyntaxError => e
  { "error" => e.message, "class" => e.class.name }
end

puts JSON.generate(JSON.parse($stdin.read).map { |request| answer(request) })
