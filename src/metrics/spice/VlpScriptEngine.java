import java.io.Reader;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import javax.script.AbstractScriptEngine;
import javax.script.Bindings;
import javax.script.ScriptContext;
import javax.script.ScriptEngine;
import javax.script.ScriptEngineFactory;
import javax.script.SimpleBindings;

/**
 * A stand-in for the JavaScript engine that Java 15 removed, for a program that asks for one only to indent JSON: whatever
 * the script, `result` becomes the value of `jsonString`, unchanged. It knows nothing of the program that uses it.
 */
public final class VlpScriptEngine extends AbstractScriptEngine {
    private final ScriptEngineFactory factory;

    private VlpScriptEngine(ScriptEngineFactory factory) {
        this.factory = factory;
    }

    @Override
    public Object eval(String script, ScriptContext context) {
        Bindings bindings = context.getBindings(ScriptContext.ENGINE_SCOPE);
        Object text = bindings.get("jsonString");
        bindings.put("result", text);
        return text;
    }

    @Override
    public Object eval(Reader script, ScriptContext context) {
        return eval("", context);
    }

    @Override
    public Bindings createBindings() {
        return new SimpleBindings();
    }

    @Override
    public ScriptEngineFactory getFactory() {
        return factory;
    }

    /** How the Java runtime finds the engine: by `META-INF/services`, under the name `JavaScript`. */
    public static final class Factory implements ScriptEngineFactory {
        @Override
        public String getEngineName() {
            return "vlp";
        }

        @Override
        public String getEngineVersion() {
            return "1";
        }

        @Override
        public List<String> getExtensions() {
            return Collections.emptyList();
        }

        @Override
        public List<String> getMimeTypes() {
            return Collections.emptyList();
        }

        @Override
        public List<String> getNames() {
            return Arrays.asList("JavaScript");
        }

        @Override
        public String getLanguageName() {
            return "ECMAScript";
        }

        @Override
        public String getLanguageVersion() {
            return "0";
        }

        @Override
        public Object getParameter(String key) {
            return ScriptEngine.NAME.equals(key) ? "JavaScript" : null;
        }

        @Override
        public String getMethodCallSyntax(String object, String method, String... arguments) {
            throw new UnsupportedOperationException();
        }

        @Override
        public String getOutputStatement(String toDisplay) {
            throw new UnsupportedOperationException();
        }

        @Override
        public String getProgram(String... statements) {
            throw new UnsupportedOperationException();
        }

        @Override
        public ScriptEngine getScriptEngine() {
            return new VlpScriptEngine(this);
        }
    }
}
